"""The command line: one file per group of commands (``draw``; ``again``; ``vary``, ``mix``, ``extend``; ``upscale``; ``train`` …).

``main`` is the click group and the program: what people can act on is printed in one line on stderr, with the exit code of
its error; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from chashka import __version__
from chashka.cli.again import again
from chashka.cli.backup import backup, restore
from chashka.cli.data import data
from chashka.cli.doctor import doctor
from chashka.cli.draw import draw
from chashka.cli.edit import extend, mix, vary
from chashka.cli.evaluate import evaluate
from chashka.cli.evaluate_quality import COMMANDS
from chashka.cli.export import export
from chashka.cli.gallery import gallery_commands
from chashka.cli.jobs import jobs
from chashka.cli.keys import keys
from chashka.cli.models import models
from chashka.cli.serve import serve, studio
from chashka.cli.train import train
from chashka.cli.upscale import upscale
from chashka.cli.verify import verify
from chashka.errors import ChashkaError

STOPPED = 130
"""The exit code after Ctrl-C, as shells have it: 128 + SIGINT."""

EXIT_CODES = """\b
Exit codes:
    0  done
    1  a bug of chashka's (with a traceback): please report it
    2  a wrong option or value; the message names what is allowed
    3  an optional part is not installed; the message names it
    4  a weight file is missing or damaged
    5  a file or folder cannot be read or written
    6  an inference engine failed or cannot run here
    7  a training recipe, shard or checkpoint does not fit
    8  refused: what was asked for is never drawn; the message says why
  130  stopped by Ctrl-C"""


class Commands(click.Group):
    """A click group that prints every error for people in one line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit; with ``standalone_mode=False`` return its value and let errors through."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, standalone_mode=False, **extra)
        if isinstance(sys.stdout, io.TextIOWrapper):  # a file name that the terminal cannot show is no reason to fail
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = super().main(args, prog_name or "chashka", complete_var, standalone_mode=False, **extra)
            sys.stdout.flush()
        except ChashkaError as error:
            _fail(str(error), error.exit_code)
        except click.exceptions.NoArgsIsHelpError as error:  # a group alone: its help, as it is meant to be read
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.UsageError as error:
            hint = f" (see {error.ctx.command_path} --help)" if error.ctx is not None else ""
            _fail(error.format_message().rstrip(".") + hint, error.exit_code)
        except click.ClickException as error:
            _fail(error.format_message(), error.exit_code)
        except (click.Abort, KeyboardInterrupt):
            _fail("stopped", STOPPED)
        except BrokenPipeError:  # the reader of our output went away; nothing is left to say, not even at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(code)


@click.group(cls=Commands, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, message="chashka %(version)s")
def main() -> None:
    """Draw pictures from text in many languages, offline, on a CPU.

    \b
    chashka draw "космос внутри чайной чашки" -n 4 --seed 7 --out pictures/
    """


for command in COMMANDS:
    evaluate.add_command(command)
for command in (draw, again, vary, mix, extend, upscale, models, doctor, data, train, export, evaluate):
    main.add_command(command)
for command in (serve, studio, jobs, gallery_commands, keys, verify, backup, restore):
    main.add_command(command)
