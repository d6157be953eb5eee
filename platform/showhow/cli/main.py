"""The `showhow` command: parse, call, print. Nothing heavy is imported before a command needs it."""

import argparse
import gc
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from showhow import __version__
from showhow.cli.command_name import command_name
from showhow.cli.models import add_model_commands
from showhow.cli.verdict import add_verdict_command
from showhow.errors import UserError

if TYPE_CHECKING:
    from rich.console import Console

    from showhow.evidence.result import StudyResult
    from showhow.home.folder import StudyFolder
    from showhow.study.study import Study

_DESCRIPTION = "Finds out how much explanation a language model needs, and which way of learning from it is best."

# The command's exit codes.
DONE, RUNS_FAILED, USER_ERROR, INTERRUPTED = 0, 1, 2, 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 some runs failed, 2 a user error, 130 interrupted."""
    chosen = _parser().parse_args(_one_change_each(sys.argv[1:] if arguments is None else arguments))
    try:
        code: int = chosen.command(chosen)
        sys.stdout.flush()
        gc.freeze()  # else Python spends a second freeing its objects at exit
    except UserError as error:
        print(f"showhow: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("showhow: interrupted; reported results are saved", file=sys.stderr)
        return INTERRUPTED
    except PermissionError as error:
        where = "Studies go to SHOWHOW_HOME, or showhow-runs here"
        print(f"showhow: {error.filename}: {error.strerror}. {where}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader closed the pipe
        return DONE
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="showhow", description=_DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"showhow {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True)

    _add_catalogue_commands(commands.add_parser)
    for name, text, command in (
        ("check", "check a study file", _check),
        ("plan", "what a study will cost: runs, tokens, disk, layouts, memory, hours", _plan),
        ("run", "run a study, or resume an interrupted one", _run),
    ):
        sub = commands.add_parser(name, help=text, description=text)
        sub.add_argument("study", help="a study file, such as search_spaces/quickstart.toml")
        _add_changes(sub, "a setting that replaces the file's, such as data.train_examples=2000")
        sub.add_argument("--name", help="a name for the study other than the file's")
        sub.set_defaults(command=command)
        if name == "run":
            sub.add_argument(
                "--address", help='a Ray cluster\'s address, or "auto" (default: start one on this machine)'
            )

    text = "show the result of a study again, also while it runs"
    results = commands.add_parser("results", help=text, description=text)
    results.add_argument("name", help="the study's name")
    results.add_argument("--json", action="store_true", help="as JSON, for scripts")
    results.set_defaults(command=_results)

    add_model_commands(commands.add_parser)
    add_verdict_command(commands.add_parser)

    text = "browse studies in the MLflow UI"
    ui = commands.add_parser("ui", help=text, description=text)
    ui.add_argument("name", nargs="?", help="the study whose runs to open")
    ui.add_argument("--port", type=int, help="port on 127.0.0.1 (default: a free one)")
    ui.set_defaults(command=_ui)
    return parser


def _add_catalogue_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    text = "the catalogue of tasks, with a problem at each level of explanation"
    tasks = add_parser("tasks", help=text, description=text)
    tasks.set_defaults(command=_tasks)

    text = "the catalogue of methods of training: what each does, its settings, stages and source"
    methods = add_parser("methods", help=text, description=text)
    methods.set_defaults(command=_methods)

    text = "the exact text that a model sees of a problem at a level of explanation"
    explain = add_parser("explain", help=text, description=text)
    explain.add_argument("task", help="a task or preset, such as modular_sum or listops-30")
    explain.add_argument(
        "--level", default="long", help="none, short, medium, long, shuffled or filler (default: long)"
    )
    explain.add_argument("--question", help="a question of your own; without it one is drawn")
    explain.add_argument("--seed", type=int, default=0, help="which problem is drawn (default: 0)")
    _add_changes(explain, "a parameter of the task, such as terms=4")
    explain.set_defaults(command=_explain)


def _add_changes(parser: argparse.ArgumentParser, text: str) -> None:
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", dest="changes", help=text)


def _one_change_each(words: Sequence[str]) -> list[str]:
    """Return `--set a=1 b=2 FILE` as `--set=a=1 --set=b=2 FILE`, so that no later argument is read as a change."""
    spread = [""]
    for word in words:
        is_plain = not word.startswith("-")
        if spread[-1] == "--set" and is_plain:
            spread[-1] += f"={word}"
        else:
            is_change = is_plain and "=" in word and spread[-1].startswith("--set=")
            spread.append(f"--set={word}" if is_change else word)
    return spread[1:]


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, markup=False, emoji=False)  # a study's text may contain brackets and colons


def _tasks(_: argparse.Namespace) -> int:
    from showhow.tasks.gallery import gallery

    print(gallery())
    return DONE


def _methods(_: argparse.Namespace) -> int:
    from showhow.methods.gallery import gallery

    print(gallery())
    return DONE


def _explain(chosen: argparse.Namespace) -> int:
    from showhow.tasks.gallery import shown

    for line in shown(chosen.task, chosen.level, chosen.question, chosen.seed, chosen.changes):
        print(line)
    return DONE


def _load(chosen: argparse.Namespace) -> "Study":
    from showhow.study.study import Study

    return Study.load(chosen.study, chosen.changes, chosen.name)


def _check(chosen: argparse.Namespace) -> int:
    from showhow.cli.check_page import print_check

    study = _load(chosen)
    print_check(study, chosen.study)
    _print_notes(study)
    return DONE


def _print_notes(study: "Study", is_for_this_machine: bool = True) -> None:
    from showhow.study.notes import notes_on

    for note in notes_on(study, is_for_this_machine):
        print(f"note: {note}", flush=True)


def _plan(chosen: argparse.Namespace) -> int:
    from showhow.cli.plan_page import print_plan
    from showhow.study.plan import make_plan

    study = _load(chosen)
    cpus = os.cpu_count() or 1
    print_plan(_console(), study, make_plan(study, cpus), cpus)
    _print_notes(study)
    return DONE


def _run(chosen: argparse.Namespace) -> int:
    study = _load(chosen)
    from showhow.cli.screen import LiveTable, PlainLines
    from showhow.study.plan import planned_trials
    from showhow.sweep.run_study import run_study

    console = _console()
    runs = len(planned_trials(study)) * len(study.seeds)
    console.print(f"{study.name} · {study.question}", soft_wrap=True)
    _print_notes(study, is_for_this_machine=False)  # the cluster checks for room
    screen = LiveTable(console, runs, study.by) if console.is_terminal else PlainLines(console)
    try:
        result = run_study(study, chosen.address, watchers=[screen], say=screen.say)
    except KeyboardInterrupt:
        screen.close()
        console.print(f"Interrupted. Reported results are saved; resume with: {_same_command(chosen)}", soft_wrap=True)
        return INTERRUPTED
    finally:
        screen.close()
    return _show(study, result, _folder(study.name))


def _same_command(chosen: argparse.Namespace) -> str:
    words = [command_name(), "run", chosen.study]
    words += ["--set", *chosen.changes] if chosen.changes else []
    words += ["--name", chosen.name] if chosen.name else []
    words += ["--address", chosen.address] if chosen.address else []
    return shlex.join(words)


def _results(chosen: argparse.Namespace) -> int:
    folder = _folder(chosen.name)
    from showhow.home.results import Results

    found = Results(folder)
    result = found.result
    if not chosen.json:
        code = _show(found.study, result, folder)
        if not found.is_over:
            command = f"{command_name()} run STUDY.toml --name {folder.name}"
            print(f"The study is not finished. Unless it is running, resume with: {command}")
        return code
    print(result.model_dump_json(indent=2))
    return RUNS_FAILED if any(row.failed for row in result.rows) else DONE


def _folder(name: str) -> "StudyFolder":
    """Find the folder of a study before slow imports."""
    from showhow.home.folder import StudyFolder, home_folder

    return StudyFolder.existing(home_folder(), name)


def _show(study: "Study", result: "StudyResult", folder: "StudyFolder") -> int:
    from showhow.evidence.table import result_table
    from showhow.evidence.wording import counted, unit_in_words

    console = _console()
    console.print()
    console.print(result_table(result, study.name, study.question))
    console.print()
    for sentence in result.conclusion:
        console.print(sentence)
    runs = sum(row.runs for row in result.rows)
    saved = f"; goals and early stopping saved {result.budget_saved:.0%} of the {unit_in_words(result.unit)}"
    console.print(f"{counted(runs, 'run')}{saved if result.budget_saved else ''}.")
    console.print(f"\nBrowse: {command_name()} ui {folder.name}   Picture: {folder.picture}", soft_wrap=True)
    return RUNS_FAILED if any(row.failed for row in result.rows) else DONE


def _ui(chosen: argparse.Namespace) -> int:
    from showhow.home.folder import StudyFolder, home_folder
    from showhow.tracking.address import is_server, redact, tracking_uri
    from showhow.tracking.mlflow.server import serve_ui
    from showhow.tracking.mlflow.tracker import check_reachable, publish_views

    home = home_folder()
    folder = StudyFolder.existing(home, chosen.name).path if chosen.name else None
    uri = tracking_uri(home)
    check_reachable(uri)
    if is_server(uri):
        _print_pages(publish_views(uri, folder, uri) if folder else {"studies": redact(uri)})
        return DONE
    server = serve_ui(uri, port=chosen.port)
    try:
        all_studies = {"studies": f"{server.address}/#/experiments"}
        _print_pages(publish_views(uri, folder, server.address) if folder else all_studies)
        print("Stop it with Ctrl-C.", flush=True)
        server.wait()
    finally:
        server.stop()
    return DONE


def _print_pages(pages: dict[str, str]) -> None:
    width = max(map(len, pages))
    for name, address in pages.items():
        print(f"{name:<{width}}  {address}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
