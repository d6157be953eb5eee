"""The commands for a study's models, `export` and `predict`: parse, call, print, as main.py does for the others."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable
from pathlib import Path

from showhow.cli.command_name import command_name

_DONE = 0
_RUN = "such as trial-003/seed-1 (default: the best, by validation accuracy)"


def add_model_commands(add_parser: Callable[..., argparse.ArgumentParser]) -> None:
    """Add both commands."""
    text = "write a run as a Hugging Face folder, and register it in MLflow"
    export = add_parser("export", help=text, description=text)
    export.add_argument("name", help="the study's name")
    export.add_argument("--run", help=_RUN)
    export.add_argument("--to", type=Path, help="a new folder (default: one in the study's)")
    export.add_argument("--adapter", action="store_true", help="write the adapter without its base model")
    export.add_argument("--overwrite", action="store_true", help="replace an exported run that is in the folder")
    export.add_argument("--no-register", action="store_true", help="do not register it in MLflow")
    export.set_defaults(command=_export)

    text = "ask a study's model, or one that was exported"
    predict = add_parser("predict", help=text, description=text)
    predict.add_argument("name", help="the study's name, or an exported folder")
    predict.add_argument("questions", nargs="+", metavar="QUESTION", help='"-" reads one a line from standard input')
    predict.add_argument("--run", help=_RUN)
    predict.add_argument("--explain", action="store_true", help="show the steps, each with its grade")
    predict.add_argument("--vllm", action="store_true", help="generate replies with vLLM, for large models on GPUs")
    predict.add_argument("--json", action="store_true", help="as JSON, for scripts")
    predict.set_defaults(command=_predict)


def _export(chosen: argparse.Namespace) -> int:
    from showhow.home.folder import StudyFolder, home_folder

    folder = StudyFolder.existing(home_folder(), chosen.name)
    from showhow.home.export import Wish, export_run, register_run

    run = export_run(folder, Wish(chosen.run, chosen.to, chosen.adapter, chosen.overwrite), _progress)
    print(f"{run.exported.run}: {run.folder}{'' if run.is_new else ' (exported before)'}", flush=True)
    if run.exported.as_adapter:
        print("MLflow: an adapter is not registered, only complete models are")
    elif not chosen.no_register:
        address, is_new = register_run(folder, run)
        print(f"MLflow: {address}{'' if is_new else ' (registered before)'}")
    source = run.folder if chosen.run or chosen.to else folder.name
    print(f"Ask it: {command_name()} predict {shlex.quote(str(source))} {shlex.quote(run.example)}")
    return _DONE


def _predict(chosen: argparse.Namespace) -> int:
    from showhow.home.folder import home_folder
    from showhow.home.predict import answers_to, not_asked
    from showhow.tasks.asking import Unasked

    lines = [line.strip() for word in chosen.questions for line in (sys.stdin if word == "-" else [word])]
    questions = [line for line in lines if line]
    answers = answers_to(home_folder(), chosen.name, chosen.run, questions, _progress, chosen.vllm)
    if chosen.json:
        print(json.dumps([answer.as_json() for answer in answers], indent=2, ensure_ascii=False))
    else:
        for answer in answers:
            print("\n".join(answer.explained()) if chosen.explain else answer.said())
    if any(isinstance(answer, Unasked) for answer in answers):
        sys.stdout.flush()
        raise not_asked(answers)
    return _DONE


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
