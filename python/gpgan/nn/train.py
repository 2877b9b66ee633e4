"""Training: one loop for the paper's Blending GAN and for the small default, and nothing else.

``train(PAPER)`` is the paper's recipe, ``train(DEFAULT)`` that of the shipped generator; change what differs
with `dataclasses.replace`. A run is a folder: ``config.json``, ``checkpoint.pt`` (the last state), ``best.pt`` (the
best on the held-out scenes), ``pool.npy`` (the precomputed samples), ``log.jsonl`` (a line for each validation),
``samples/`` (a picture for each) and, at the end, ``loss.png``. A second call continues where the first stopped, and
may be killed at any moment again. ``torchrun`` starts it in several processes, which share each batch.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from gpgan.nn import _distributed, _precision, _run_folder
from gpgan.nn._validation import HeldOut, Scores
from gpgan.nn.config import DEFAULT, PAPER, TrainConfig, from_json
from gpgan.nn.data import (
    Batch,
    PairDataset,
    Pool,
    augment,
    build_pool,
    find_images,
    find_masks,
    find_scenes,
    index_batches,
    read_crops,
    unpack,
)
from gpgan.nn.model import BlendingGAN, ColorCorrector, Critic

__all__ = ["DEFAULT", "PAPER", "OneImage", "TrainConfig", "build_generator", "critic_steps_at", "load_run", "train"]


class OneImage(nn.Module):
    """A generator that is shown one image and the mask alone: the ablation ``TrainConfig.inputs``.

    The image stands for the composite and for the harmonized one, and under the mask for the source too, whose
    surroundings are black.

    Parameters
    ----------
    generator : nn.Module
        Follows the contract of `gpgan.nn.model`.
    harmonized : bool
        Whether the image is the harmonized composite, or else the plain one.
    """

    def __init__(self, generator: nn.Module, harmonized: bool) -> None:
        super().__init__()
        self.generator = generator
        self.harmonized = harmonized

    def forward(self, composite: Tensor, mask: Tensor, harmonized: Tensor, source: Tensor) -> Tensor:
        """Colour (N, 3, S, S) in [0, 1]; `source` is ignored, and so is the image that is not shown."""
        seen = harmonized if self.harmonized else composite
        colour: Tensor = self.generator(seen, mask, seen, mask * seen)
        return colour


def build_generator(config: TrainConfig) -> nn.Module:
    """The generator that `config` names, with fresh weights."""
    generator: nn.Module
    if config.architecture == "blending-gan":
        generator = BlendingGAN(config.image_size, config.width, config.bottleneck)
    else:
        generator = ColorCorrector(config.image_size, config.width)
    return generator if config.inputs == "all" else OneImage(generator, config.inputs == "harmonized")


def critic_steps_at(config: TrainConfig, step: int) -> int:
    """Critic steps, and so batches, of generator step `step` (from 0); one batch without a critic too."""
    if config.reconstruction == 1:
        return 1
    boosted = step < config.boost_first or step % config.boost_every == 0
    return config.critic_boost if boosted else config.critic_steps


def load_run(run: str | os.PathLike[str], which: str = "best") -> tuple[nn.Module, TrainConfig]:
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
    state = _run_folder.load_state(Path(run) / ("best.pt" if which == "best" else "checkpoint.pt"))
    config = from_json(json.loads(state["config"]))
    generator = build_generator(config)
    generator.load_state_dict(state["average"])
    return generator.eval(), config


def train(config: TrainConfig, *, progress: bool = True, tensorboard: bool = False) -> Path:
    """Train, or continue the run in ``config.run``, and return the path of its best checkpoint.

    On the CPU a run that is stopped or killed and continued ends in the same state, bit for bit, as one that was
    never stopped.

    Parameters
    ----------
    config : TrainConfig
    progress : bool
        Show a progress bar (needs tqdm).
    tensorboard : bool
        Write scalars and pictures to the run folder (needs tensorboard).

    Raises
    ------
    ValueError
        If the folder holds a run of another configuration; only what decides no number may change.

    Notes
    -----
    In processes that torchrun started, each takes its share of every batch and the first one writes; all must see the
    same run folder. Batch norm, in the paper's generator and in the critic, then sees shares, on GPUs whole batches.
    """
    with _distributed.join(config.device) as processes:
        return _train(config, processes, progress and processes.is_first, tensorboard and processes.is_first)


def _train(config: TrainConfig, processes: _distributed.Processes, progress: bool, tensorboard: bool) -> Path:
    run, device = Path(config.run), processes.device
    own = processes.share(config.batch_size)
    if config.threads is not None:
        torch.set_num_threads(config.threads)

    # Data: everything is a function of (seed, index), so the batch counter is all there is to resume. The first process
    # computes the pool, the others find it; and it alone validates.
    if processes.is_first:
        _run_folder.claim(config)
        samples, held_out = _datasets(config, run, progress)
    processes.wait()
    if not processes.is_first:
        without = replace(config, held_out=(), exclude=(*config.held_out, *config.exclude))
        samples, held_out = _datasets(without, run)

    # Networks, optimisers, state. Seeded here, as computing a pool draws numbers too, but finding one draws none.
    torch.manual_seed(config.seed)
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
        state = _run_folder.load_state(run / "checkpoint.pt", device)
        generator.load_state_dict(state["generator"])
        average.load_state_dict(state["average"])
        critic.load_state_dict(state["critic"])
        adam.load_state_dict(state["adam"])
        critic_adam.load_state_dict(state["critic_adam"])
        torch.set_rng_state(state["rng"].cpu())
        step, batches_seen, best = state["step"], state["batches_seen"], state["best"]
    for network in (generator, critic):
        _precision.layers_in(_precision.resolve(config.precision, device), network)
    generate, critic_loss_of = processes.parallel(generator), processes.parallel(_CriticLoss(critic))

    loader = _batches(config, samples, batches_seen, own)
    if processes.is_first:
        _run_folder.shorten_log(run, step)
    bar = _run_folder.progress_bar(total=config.stop_step, initial=step, unit="step") if progress else None
    writer = _run_folder.summary_writer(run, step) if tensorboard else None
    start = time.monotonic()
    logged, losses = step, torch.zeros(2, device=device)  # since the last entry: the generator's, the critic's

    while step < config.stop_step:
        generator.train()

        # The critic: raise D(real) - D(fake) under the weight clip. The last fake is the generator's too.
        critic_steps = critic_steps_at(config, step)
        for k in range(critic_steps):
            batch = Batch(*(image.to(device) for image in next(loader)))
            batches_seen += 1
            with torch.set_grad_enabled(k == critic_steps - 1):
                fake = generate(*batch.inputs)
            if config.reconstruction < 1:
                critic_loss = critic_loss_of(fake.detach(), batch.target)
                critic_adam.zero_grad()
                critic_loss.backward()
                critic_adam.step()
                with torch.no_grad():
                    for parameter in critic.parameters():
                        parameter.clamp_(-config.clip, config.clip)
                losses[1] += critic_loss.detach() / critic_steps

        # The generator.
        for group in adam.param_groups:
            group["lr"] = config.learning_rate * _schedule(config, step)
        loss = config.reconstruction * _reconstruction(config, fake, batch)
        if config.reconstruction < 1:
            critic.requires_grad_(False)  # its own gradients are not wanted here
            loss = loss - (1 - config.reconstruction) * critic(fake).mean()
            critic.requires_grad_(True)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if config.gradient_norm is not None:
            nn.utils.clip_grad_norm_(generator.parameters(), config.gradient_norm)
        adam.step()
        losses[0] += loss.detach()
        step += 1
        _update_average(average, generator, min(config.average, step / (step + 10)))

        if bar is not None:
            bar.update()
        if step % config.validate_every == 0 or step == config.stop_step:
            means = [processes.mean(total) / (step - logged) for total in losses]
            entry: dict[str, float] = {"step": step, "loss": means[0]}
            if config.reconstruction < 1:
                entry["critic"] = means[1]
            logged, losses = step, torch.zeros_like(losses)
            if not processes.is_first:
                continue
            now = time.monotonic()
            entry["seconds"] = round(now - start, 1)
            scores = None if held_out is None else held_out(average, device)
            if scores is not None:
                entry |= scores.numbers | {"validation_seconds": round(time.monotonic() - now, 1)}
            score = entry.get("psnr", -entry["loss"])
            saved = json.dumps(asdict(config))
            # In this order, so that after a kill what is missing is written again, and what is there again the same.
            _write_entry(run, entry, scores, writer)
            if score > best:
                best = score
                kept = {"config": saved, "step": step, "average": average.state_dict()}
                _run_folder.save_state(run / "best.pt", kept)
            state = {
                "config": saved, "step": step, "batches_seen": batches_seen, "best": best,
                "rng": torch.get_rng_state(), "generator": generator.state_dict(), "average": average.state_dict(),
                "critic": critic.state_dict(), "adam": adam.state_dict(), "critic_adam": critic_adam.state_dict(),
            }  # fmt: skip
            _run_folder.save_state(run / "checkpoint.pt", state)
            if bar is not None:
                bar.set_postfix({k: f"{entry[k]:.4g}" for k in ("loss", "psnr", "gain") if k in entry})

    if processes.is_first:
        _run_folder.plot_log(run)
    if bar is not None:
        bar.close()
    if writer is not None:
        writer.close()
    return run / "best.pt"


# --- The parts ----------------------------------------------------------------------------------------------


_PLAIN: dict[str, Any] = dict.fromkeys(("simulated", "unrelated", "cutout", "same", "recoloured"), 0.0)


def _datasets(config: TrainConfig, run: Path, progress: bool = False) -> tuple[PairDataset | Pool, HeldOut | None]:
    """The training samples, and the held-out pairs where there are any."""
    photos = [p for root in config.photos for p in find_images(root)]
    masks = [p for root in config.masks for p in find_masks(root)]
    held_out = HeldOut(config, masks) if config.held_out else None
    scenes = find_scenes(config.scenes, exclude=(*config.held_out, *config.exclude))
    dataset = PairDataset(
        scenes, photos, masks, length=config.pairs, seed=config.seed, image_size=config.image_size,
        centred_square=config.centred_square, membrane=config.membrane, crops=config.crops,
        boxes=None if config.crop_file is None else read_crops(config.crop_file),
        **({} if config.crops else _PLAIN),
    )  # fmt: skip
    if not config.pool:
        return dataset, held_out
    path = run / "pool.npy"
    if not path.exists():
        watch = partial(_run_folder.progress_bar, unit="sample") if progress else iter
        build_pool(dataset, path, workers=config.workers, watch=watch)
    samples = Pool(path)
    came, expected = (len(samples), samples.image_size), (config.pairs, config.image_size)
    if came != expected:
        raise ValueError(f"{path}: expected (pairs, image_size) = {expected}, got {came}")
    return samples, held_out


def _batches(config: TrainConfig, samples: PairDataset | Pool, start: int, own: slice) -> Iterator[Batch]:
    """The `own` samples of batch `start` and all later ones."""
    indices = index_batches(len(samples), config.batch_size, config.seed, start)
    loader = DataLoader(
        samples,
        batch_sampler=(batch[own] for batch in indices),
        num_workers=config.workers,
        generator=torch.Generator(),  # its own, as the global one is part of the run's state
    )
    for number, packed in enumerate(loader, start):
        batch = unpack(packed)
        if config.augment:
            # As many as the whole batch has, so that each sample is changed as it would be in one process.
            count = config.batch_size // len(packed)
            whole = Batch(*(image.repeat(count, 1, 1, 1) for image in batch))
            changed = augment(whole, np.random.default_rng((config.seed, number)))
            batch = Batch(*(image[own] for image in changed))
        yield batch


class _CriticLoss(nn.Module):
    """Both of the critic's passes in one, as several processes can only average the gradients of one."""

    def __init__(self, critic: Critic) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        loss: Tensor = self.critic(fake).mean() - self.critic(real).mean()
        return loss


def _reconstruction(config: TrainConfig, fake: Tensor, batch: Batch) -> Tensor:
    if config.loss == "l2":
        return ((fake - batch.target) ** 2).mean()
    # 2e-3, or 27 dB, is what the photos' detail adds to the error of a blend, whatever its low-resolution colour.
    before, after = (
        torch.log10(_error_inside(image, batch.target, batch.mask) + 2e-3) for image in (batch.harmonized, fake)
    )
    return (after - before + config.harm * torch.relu(after - before)).mean()


def _error_inside(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Mean squared error (N,) of (N, 3, S, S), weighted by the mask (N, 1, S, S)."""
    return ((image - target) ** 2 * mask).sum((1, 2, 3)) / (3 * mask.sum((1, 2, 3)) + 1e-6)


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


def _write_entry(run: Path, entry: dict[str, float], scores: Scores | None, writer: Any) -> None:
    """What a validation found, to the log, ``samples/`` and TensorBoard."""
    step = int(entry["step"])
    _run_folder.append_to_log(run, entry)
    if scores is not None:
        (run / "samples").mkdir(exist_ok=True)
        with _run_folder.replacing(run / "samples" / f"{step:06d}.png") as file:
            scores.samples.save(file, "PNG")
    if writer is not None:
        for name, value in entry.items():
            writer.add_scalar(name, value, step)
        if scores is not None:
            writer.add_image("held out", np.asarray(scores.samples), step, dataformats="HWC")
        writer.flush()
