"""``python -m gpgan``: the command line, for ``torchrun -m gpgan train`` above all."""

from gpgan.cli import app

if __name__ == "__main__":
    app(prog_name="gpgan")
