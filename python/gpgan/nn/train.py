"""Training: one loop for the paper's Blending GAN and for the small default, and nothing else.

``train(PAPER)`` is the paper's recipe, ``train(DEFAULT)`` that of the shipped generator; change what differs
with `dataclasses.replace`. A run is a folder: ``checkpoint.pt`` (the last state), ``best.pt`` (the best on
the held-out scene), ``pool.npy`` (the precomputed samples), ``log.jsonl``. A second call continues where the
first stopped.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gpgan.nn.data import (
    Batch,
    PairDataset,
    Pool,
    augment,
    build_pool,
    find_images,
    find_scenes,
    index_batches,
    unpack,
)
from gpgan.nn.model import BlendingGAN, ColorCorrector, Critic

__all__ = ["DEFAULT", "PAPER", "TrainConfig", "build_generator", "critic_steps_at", "load_run", "train"]


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that decides a run. The defaults are the paper's (section 4 and the authors' program).

    Parameters
    ----------
    run : str
        Folder of the run.
    scenes : str
        ``ROOT`` of ``ROOT/<camera>/*.jpg``.
    photos, masks : tuple of str
        Folders of single photos (for simulated pairs and unrelated surroundings) and of drawn masks.
    held_out : tuple of str
        Cameras below `scenes` for validation only.
    exclude : tuple of str
        Cameras to leave alone altogether.
    pairs, seed, workers
        Training samples, what decides them, processes that compute them.
    pool : bool
        Compute all samples once, before training, instead of whenever they are needed.
    augment : bool
        Flips, channel permutations and gains on each batch.
    centred_square, membrane
        See `PairDataset`.
    crops : bool
        Random crops, and with them all the variety of `PairDataset`: simulated pairs, unrelated surroundings
        and the rest. Otherwise whole aligned frames, as in the paper.
    architecture : str
        ``"blending-gan"`` (the paper) or ``"color-corrector"`` (the shipped default).
    image_size, width, bottleneck, critic_width
        See the networks; `bottleneck` is the paper's alone.
    loss : str
        ``"l2"``: mean squared error of the whole image. ``"decibel"``: log10 of the error inside the mask,
        sample by sample and relative to the harmonized composite's, which is what PSNR measures.
    harm : float
        How much more a decibel lost weighs than one won, in the loss ``"decibel"``.
    reconstruction : float
        lambda of the paper's Eq. 2: ``lambda * loss + (1 - lambda) * adversarial``; 1 trains without a
        critic.
    clip : float
        The critic's weights stay within +-clip (WGAN).
    critic_steps, critic_boost, boost_first, boost_every
        Critic steps per generator step: `critic_boost` in the first `boost_first` and every `boost_every`-th
        step, otherwise `critic_steps`.
    learning_rate, critic_learning_rate, beta1, weight_decay
        Adam; decoupled weight decay of the generator.
    gradient_norm : float or None
        The generator's gradient is scaled down to this norm where it is larger; None leaves it alone.
    schedule : str
        ``"constant"``, or ``"cosine"``: a short linear start, then to 0 at the last step.
    batch_size, epochs, steps, stop
        `steps` generator steps; None: ``epochs * pairs / batch_size``. `stop` ends the run earlier, at that step of the
        same schedule.
    average : float
        Decay of the running average of the weights that is validated and exported; 0 for none.
    validate_every, validation_pairs : int
        Steps between validations (and checkpoints), and the samples each of them takes.
    threads : int or None
        Torch threads; None leaves them alone.
    device : str
        ``"cpu"`` or ``"cuda"``.
    """

    run: str
    scenes: str
    photos: tuple[str, ...] = ()
    masks: tuple[str, ...] = ()
    held_out: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    pairs: int = 150_000
    seed: int = 0
    workers: int = 0
    pool: bool = False
    augment: bool = False
    centred_square: bool = True
    membrane: bool = False
    crops: bool = False
    architecture: str = "blending-gan"
    image_size: int = 64
    width: int = 64
    bottleneck: int = 4000
    critic_width: int = 64
    loss: str = "l2"
    harm: float = 1.0
    reconstruction: float = 0.999
    clip: float = 0.01
    critic_steps: int = 5
    critic_boost: int = 100
    boost_first: int = 25
    boost_every: int = 500
    learning_rate: float = 0.002
    critic_learning_rate: float = 0.0002
    beta1: float = 0.5
    weight_decay: float = 0.0
    gradient_norm: float | None = None
    schedule: str = "constant"
    batch_size: int = 64
    epochs: int = 25
    steps: int | None = None
    stop: int | None = None
    average: float = 0.0
    validate_every: int = 500
    validation_pairs: int = 256
    threads: int | None = None
    device: str = "cpu"

    def __post_init__(self) -> None:
        choices = {
            "architecture": ("blending-gan", "color-corrector"), "loss": ("l2", "decibel"),
            "schedule": ("constant", "cosine"),
        }  # fmt: skip
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise ValueError(f"{name} must be one of {', '.join(allowed)}, but is {getattr(self, name)!r}")
        for name in ("pairs", "batch_size", "epochs", "critic_steps", "validate_every", "validation_pairs"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, but is {getattr(self, name)}")
        if not 0 <= self.reconstruction <= 1:
            raise ValueError(f"reconstruction must lie in [0, 1], but is {self.reconstruction}")

    @property
    def last_step(self) -> int:
        """Generator steps of the whole schedule."""
        return self.steps if self.steps is not None else self.epochs * self.pairs // self.batch_size

    @property
    def stop_step(self) -> int:
        """Generator steps of the run."""
        return self.last_step if self.stop is None else min(self.stop, self.last_step)


PAPER = TrainConfig(run="runs/paper", scenes="data/aligned")

DEFAULT = TrainConfig(
    run="runs/default", scenes="data/aligned", pairs=32_000, pool=True, augment=True, centred_square=False,
    membrane=True, crops=True, architecture="color-corrector", width=24, critic_width=16, loss="decibel",
    critic_steps=1, critic_boost=1, learning_rate=0.0007, beta1=0.9, weight_decay=0.05, gradient_norm=10.0,
    schedule="cosine", steps=3_200, stop=1_200, batch_size=32, validate_every=200, average=0.999,
)  # fmt: skip


def build_generator(config: TrainConfig) -> BlendingGAN | ColorCorrector:
    """The generator that `config` names, with fresh weights."""
    if config.architecture == "blending-gan":
        return BlendingGAN(config.image_size, config.width, config.bottleneck)
    return ColorCorrector(config.image_size, config.width)


def critic_steps_at(config: TrainConfig, step: int) -> int:
    """Critic steps, and so batches, of generator step `step` (from 0); one batch without a critic too."""
    if config.reconstruction == 1:
        return 1
    boosted = step < config.boost_first or step % config.boost_every == 0
    return config.critic_boost if boosted else config.critic_steps


def load_run(run: str | os.PathLike[str], which: str = "best") -> tuple[BlendingGAN | ColorCorrector, TrainConfig]:
    """The generator of a run, averaged where the run averages, in evaluation mode; and the run's configuration.

    Parameters
    ----------
    run : path
        The run's folder.
    which : str
        ``"best"`` on the held-out scenes, or the ``"last"``.
    """
    if which not in ("best", "last"):
        raise ValueError(f"which must be 'best' or 'last', but is {which!r}")
    state = _load(Path(run) / ("best.pt" if which == "best" else "checkpoint.pt"))
    saved: dict[str, Any] = json.loads(state["config"])
    lists = {key: tuple(value) for key, value in saved.items() if isinstance(value, list)}
    config = TrainConfig(**(saved | lists))
    generator = build_generator(config)
    generator.load_state_dict(state["average"])
    return generator.eval(), config


def train(config: TrainConfig, *, progress: bool = True, tensorboard: bool = False) -> Path:
    """Train, or continue the run in ``config.run``, and return the path of its best checkpoint.

    On the CPU a run that is stopped at a checkpoint and continued ends in the same state, bit for bit, as one
    that was never stopped.

    Parameters
    ----------
    config : TrainConfig
    progress : bool
        Show a progress bar (needs tqdm).
    tensorboard : bool
        Write scalars to the run folder (needs tensorboard).

    Raises
    ------
    ValueError
        If the folder holds a run of another configuration; only what decides no number may change.
    """
    run = Path(config.run)
    run.mkdir(parents=True, exist_ok=True)
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    device = torch.device(config.device)

    # Data: everything is a function of (seed, index), so the batch counter is all there is to resume.
    samples, held_out = _datasets(config, run)

    # Networks, optimisers, state.
    generator = build_generator(config).to(device)
    average = deepcopy(generator).requires_grad_(False)
    critic = Critic(config.image_size, config.critic_width).to(device)
    adam = torch.optim.AdamW(
        generator.parameters(), config.learning_rate, (config.beta1, 0.999), weight_decay=config.weight_decay
    )
    critic_adam = torch.optim.Adam(critic.parameters(), config.critic_learning_rate, (config.beta1, 0.999))
    step = batches_seen = 0
    best = -math.inf
    if (run / "checkpoint.pt").exists():
        state = _load(run / "checkpoint.pt", device)
        _require_same_run(config, json.loads(state["config"]), run)
        generator.load_state_dict(state["generator"])
        average.load_state_dict(state["average"])
        critic.load_state_dict(state["critic"])
        adam.load_state_dict(state["adam"])
        critic_adam.load_state_dict(state["critic_adam"])
        torch.set_rng_state(state["rng"].cpu())
        step, batches_seen, best = state["step"], state["batches_seen"], state["best"]

    indices = index_batches(len(samples), config.batch_size, config.seed, batches_seen)
    loader = iter(
        DataLoader(
            samples,
            batch_sampler=indices,
            num_workers=config.workers,
            generator=torch.Generator(),  # its own, as the global one is part of the run's state
        )
    )
    bar = _progress_bar(config, step) if progress else None
    writer = _summary_writer(run) if tensorboard else None
    start = time.monotonic()

    while step < config.stop_step:
        generator.train()

        # The critic: raise D(real) - D(fake) under the weight clip. The last fake is the generator's too.
        critic_steps = critic_steps_at(config, step)
        for k in range(critic_steps):
            batch = unpack(next(loader))
            if config.augment:
                batch = augment(batch, np.random.default_rng((config.seed, batches_seen)))
            batch = Batch(*(image.to(device) for image in batch))
            batches_seen += 1
            with torch.set_grad_enabled(k == critic_steps - 1):
                fake = generator(*batch.inputs)
            if config.reconstruction < 1:
                critic_loss = critic(fake.detach()).mean() - critic(batch.target).mean()
                critic_adam.zero_grad()
                critic_loss.backward()
                critic_adam.step()
                with torch.no_grad():
                    for parameter in critic.parameters():
                        parameter.clamp_(-config.clip, config.clip)

        # The generator.
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * _schedule(config, step)
        reconstruction = _reconstruction(config, fake, batch)
        loss = config.reconstruction * reconstruction
        if config.reconstruction < 1:
            loss = loss - (1 - config.reconstruction) * critic(fake).mean()
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_norm is not None:
            nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_norm)
        adam.step()
        step += 1
        _update_average(average, generator, min(config.average, step / (step + 10)))

        if bar is not None:
            bar.update()
        if step % config.validate_every == 0 or step == config.stop_step:
            entry = {"step": step, "loss": loss.item(), "seconds": round(time.monotonic() - start)}
            if config.reconstruction < 1:
                entry["critic"] = critic_loss.item()
            entry |= _validate(average, held_out, device)
            score = entry.get("psnr", -entry["loss"])
            state = {
                "config": json.dumps(asdict(config)), "step": step, "batches_seen": batches_seen,
                "best": max(best, score), "rng": torch.get_rng_state(), "generator": generator.state_dict(),
                "average": average.state_dict(), "critic": critic.state_dict(), "adam": adam.state_dict(),
                "critic_adam": critic_adam.state_dict(),
            }  # fmt: skip
            if score > best:
                best = score
                kept = {"config": state["config"], "step": step, "average": average.state_dict()}
                _save(run / "best.pt", kept)
            _save(run / "checkpoint.pt", state)
            with (run / "log.jsonl").open("a") as log:
                log.write(json.dumps(entry) + "\n")
            if writer is not None:
                for name, value in entry.items():
                    writer.add_scalar(name, value, step)
            if bar is not None:
                bar.set_postfix({k: f"{v:.4g}" for k, v in entry.items() if k != "step"})

    if bar is not None:
        bar.close()
    if writer is not None:
        writer.close()
    return run / "best.pt"


# --- The parts ----------------------------------------------------------------------------------------------


_PLAIN: dict[str, Any] = {"simulated": 0.0, "unrelated": 0.0, "cutout": 0.0, "same": 0.0, "recoloured": 0.0}


def _datasets(config: TrainConfig, run: Path) -> tuple[PairDataset | Pool, Tensor | None]:
    """The training samples, and the packed held-out samples (surroundings half matching, half unrelated)."""
    scenes = find_scenes(config.scenes, exclude=(*config.held_out, *config.exclude))
    photos = [p for root in config.photos for p in find_images(root)]
    masks = [p for root in config.masks for p in find_images(root)]
    options: dict[str, Any] = {
        "image_size": config.image_size, "centred_square": config.centred_square, "membrane": config.membrane,
        "crops": config.crops,
    }  # fmt: skip
    variety = {} if config.crops else _PLAIN
    dataset = PairDataset(scenes, photos, masks, length=config.pairs, seed=config.seed, **options, **variety)
    samples: PairDataset | Pool = dataset
    if config.pool:
        path = run / "pool.npy"
        samples = Pool(path) if path.exists() else build_pool(dataset, path, workers=config.workers)
        came, expected = (len(samples), samples.image_size), (config.pairs, config.image_size)
        if came != expected:
            raise ValueError(f"{path}: expected (pairs, image_size) = {expected}, got {came}")
    if not config.held_out:
        return samples, None
    frames = {name: paths for name, paths in find_scenes(config.scenes).items() if name in config.held_out}
    half = (config.validation_pairs + 1) // 2
    options |= _PLAIN | {"length": half, "seed": config.seed + 1}
    held_out = [PairDataset(frames, photos, masks, **options | {"unrelated": other}) for other in (0.0, 1.0)]
    return samples, torch.stack([dataset[i] for dataset in held_out for i in range(half)])


def _reconstruction(config: TrainConfig, fake: Tensor, batch: Batch) -> Tensor:
    if config.loss == "l2":
        return ((fake - batch.target) ** 2).mean()
    # 1e-4 is 40 dB, beyond which nobody sees more.
    before, after = (
        torch.log10(_error_inside(image, batch.target, batch.mask) + 1e-4) for image in (batch.harmonized, fake)
    )
    return (after - before + config.harm * torch.relu(after - before)).mean()


def _error_inside(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error (N,) of (N, 3, S, S), weighted by the mask (N, 1, S, S)."""
    return ((image - target) ** 2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)))


def _schedule(config: TrainConfig, step: int) -> float:
    if config.schedule == "constant":
        return 1.0
    return min(1.0, (step + 1) / 200) * 0.5 * (1 + math.cos(math.pi * step / config.last_step))


@torch.no_grad()
def _update_average(average: nn.Module, generator: nn.Module, decay: float) -> None:
    for mean, weight in zip(average.parameters(), generator.parameters(), strict=True):
        mean.lerp_(weight, 1 - decay)
    for buffer, latest in zip(average.buffers(), generator.buffers(), strict=True):
        buffer.copy_(latest)


@torch.no_grad()
def _validate(generator: nn.Module, samples: Tensor | None, device: torch.device) -> dict[str, float]:
    """In dB, at S x S inside the mask: PSNR, and gain over the harmonized composite by surroundings."""
    if samples is None:
        return {}
    generator.eval()
    psnrs, gains = [], []
    for start in range(0, len(samples), 64):
        batch = unpack(samples[start : start + 64].to(device))
        after, before = (
            -10 * torch.log10(_error_inside(image, batch.target, batch.mask) + 1e-8)
            for image in (generator(*batch.inputs), batch.harmonized)
        )
        psnrs.append(after)
        gains.append(after - before)
    psnr, gain = torch.cat(psnrs), torch.cat(gains)
    half = len(samples) // 2
    return {
        "psnr": psnr.mean().item(),
        "gain_related": gain[:half].mean().item(),
        "gain_unrelated": gain[half:].mean().item(),
        "worst_tenth": gain.sort()[0][: len(gain) // 10 + 1].mean().item(),
    }


def _save(path: Path, state: Mapping[str, Any]) -> None:
    """Write beside `path`, then rename: a kill at any moment leaves the old file or the new one."""
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        torch.save(dict(state), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def _load(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {os.fspath(path)!r}")
    state: dict[str, Any] = torch.load(path, map_location=device, weights_only=True)
    return state


def _require_same_run(config: TrainConfig, saved: dict[str, Any], run: Path) -> None:
    free = {"run", "steps", "stop", "device", "threads", "workers"}
    wanted = json.loads(json.dumps(asdict(config)))
    different = sorted(k for k in wanted if k not in free and wanted[k] != saved.get(k))
    if different:
        raise ValueError(f"run: {run} holds a run with another {', '.join(different)}; expected an empty folder")


def _progress_bar(config: TrainConfig, step: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("the progress bar needs tqdm: pip install 'gpgan[train]'") from error
    return tqdm(total=config.stop_step, initial=step, unit="step", mininterval=1.0)


def _summary_writer(run: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError("tensorboard=True needs tensorboard: pip install 'gpgan[train]'") from error
    return SummaryWriter(os.fspath(run))
