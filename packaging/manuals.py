"""Man pages and shell completion, from the commands and settings themselves.

``python packaging/manuals.py DIRECTORY VERSION`` writes them where a package has them, ``usr/share/...``.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import importlib.util
import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from daemon.__main__ import main as daemon
from daemon.config import KNOWN
from daemon.ctl.app import cli

UPDATE = Path(__file__).with_name("photometryd-update")
COMPLETIONS = {
    "bash": "usr/share/bash-completion/completions/photometryctl",
    "zsh": "usr/share/zsh/vendor-completions/_photometryctl",
    "fish": "usr/share/fish/vendor_completions.d/photometryctl.fish",
}
FILES = """\
.SH FILES
.TP
.I /etc/photometryd/photometryd.toml
settings, see photometryd.toml(5)
.TP
.I /var/lib/photometryd
runs, catalogue, logs
.TP
.I /opt/photometryd/current/docs
the whole documentation; its field/README.md goes by what you see
"""
SEE_ALSO = ".SH SEE ALSO\nphotometryd(8), photometryctl(1), photometryd-update(8), photometryd.toml(5)\n"


def roff(text: str) -> str:
    """Text as it is, for troff."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return re.sub(r"^([.'])", r"\\&\1", text, flags=re.MULTILINE)


def head(name: str, section: int, version: str, summary: str) -> str:
    """Title line and NAME. Dated by SOURCE_DATE_EPOCH where it is set."""
    told = os.environ.get("SOURCE_DATE_EPOCH")
    day = (datetime.fromtimestamp(int(told), UTC) if told else datetime.now(UTC)).strftime("%Y-%m-%d")
    title = f'.TH {name.upper()} {section} "{day}" "photometryd {version}" "Charge photometry"\n'
    return title + f".SH NAME\n{roff(name)} \\- {roff(summary)}\n"


def paragraphs(text: str) -> str:
    """A docstring's paragraphs; one that begins with a line of \\b keeps its lines."""
    parts = []
    for part in re.split(r"\n\s*\n", (text or "").replace("\f", "").strip()):
        kept = part.startswith("\b")
        lines = [line.strip() for line in part.strip("\b\n ").splitlines()]
        parts.append(".nf\n" + roff("\n".join(lines)) + "\n.fi\n" if kept else roff(" ".join(lines)) + "\n")
    return ".PP\n".join(parts)


def items(rows: list[tuple[str, str]]) -> str:
    """Terms in bold, each with its meaning."""
    return "".join(f".TP\n.B {roff(term)}\n{roff(' '.join(meaning.split()))}\n" for term, meaning in rows)


def commands(group: click.Command, context: click.Context) -> Iterator[tuple[click.Command, click.Context]]:
    """Every command below a group, with its context; those of groups in groups after their group."""
    if isinstance(group, click.Group):
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            if command is not None and not command.hidden:
                below = click.Context(command, parent=context, info_name=name)
                yield command, below
                yield from commands(command, below)


def options(command: click.Command, context: click.Context) -> list[tuple[str, str]]:
    """The options and described arguments of a command."""
    records = [param.get_help_record(context) for param in command.get_params(context)]
    return [record for record in records if record and record[1]]


def usage(command: click.Command, context: click.Context) -> str:
    """How it is called."""
    return " ".join([context.command_path, *command.collect_usage_pieces(context)])


def tool_page(version: str) -> str:
    """photometryctl(1): every command with every option."""
    context = click.Context(cli, info_name="photometryctl")
    page = head("photometryctl", 1, version, "operator's tool of a charge-photometry instrument")
    page += f".SH SYNOPSIS\n.B {roff(usage(cli, context))}\n.SH DESCRIPTION\n{paragraphs(cli.help or '')}"
    page += f".SH OPTIONS\n{items(options(cli, context))}.SH COMMANDS\n"
    for command, below in commands(cli, context):
        page += f'.SS "{roff(usage(command, below))}"\n{paragraphs(command.help or "")}{items(options(command, below))}'
    return page + FILES + SEE_ALSO


def daemon_page(version: str) -> str:
    """photometryd(8)."""
    context = click.Context(daemon, info_name="photometryd")
    page = head("photometryd", 8, version, "service of a charge-photometry instrument")
    page += f".SH SYNOPSIS\n.B {roff(usage(daemon, context))}\n.SH DESCRIPTION\n{paragraphs(daemon.help or '')}"
    page += ".PP\nsystemd runs it as photometryd.service. Exit codes: 0 it was told to stop, 1 the instrument or\n"
    page += "its settings say no, with a sentence, 2 wrong usage.\n"
    return page + f".SH OPTIONS\n{items(options(daemon, context))}" + FILES + SEE_ALSO


def settings_page(version: str) -> str:
    """photometryd.toml(5): every setting."""
    page = head("photometryd.toml", 5, version, "settings of a charge-photometry instrument")
    page += (
        ".SH DESCRIPTION\nTOML. Nothing needs to be set. A name that is not known, or a wrong type, stops the service\n"
    )
    page += "before it starts; photometryctl check\\-config tells beforehand.\n.SH SETTINGS\n"
    for name, setting in KNOWN.items():
        if setting.kind == "table":
            page += f'.SS "[{roff(name)}]"\n{roff(setting.doc)}\n'
            continue
        default = "required" if setting.required else f"default: {setting.default}"
        facts = "; ".join(part for part in (setting.allowed, setting.unit, default) if part)
        page += items([(name, f"{setting.doc} ({facts})")])
    return page + FILES + SEE_ALSO


def update_page(version: str) -> str:
    """photometryd-update(8), from its argument parser."""
    loader = importlib.machinery.SourceFileLoader("photometryd_update", str(UPDATE))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look there
    loader.exec_module(module)
    parser: argparse.ArgumentParser = module.parser()
    page = head("photometryd-update", 8, version, "which installed version of photometryd runs, and the way back")
    page += f".SH SYNOPSIS\n.B {roff(' '.join(parser.format_usage().split()[1:]))}\n"
    page += f".SH DESCRIPTION\n{paragraphs(module.__doc__ or '')}.SH OPTIONS\n{items(arguments(parser))}.SH COMMANDS\n"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for command in action.choices.values():
                called = " ".join(command.format_usage().split()[1:])
                page += f'.SS "{roff(called)}"\n{paragraphs(command.description or "")}{items(arguments(command))}'
    return page + SEE_ALSO


def arguments(parser: argparse.ArgumentParser) -> list[tuple[str, str]]:
    """The options of an argument parser."""
    actions = [action for action in parser._actions if action.option_strings]
    formatter = parser._get_formatter()
    return [(", ".join(action.option_strings), formatter._expand_help(action)) for action in actions]


def main(directory: Path, version: str) -> None:
    """Write all of it."""
    pages = {"man1/photometryctl.1": tool_page, "man8/photometryd.8": daemon_page}
    pages |= {"man5/photometryd.toml.5": settings_page, "man8/photometryd-update.8": update_page}
    for name, page in pages.items():
        path = directory / "usr/share/man" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(version), encoding="utf-8")
    for shell, name in COMPLETIONS.items():
        script = get_completion_class(shell)
        assert script is not None
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(script(cli, {}, "photometryctl", "_PHOTOMETRYCTL_COMPLETE").source(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
