"""``ovllama``: the command line. Every command's errors are sentences, never tracebacks.

Knows how to talk to a terminal; what the commands do is elsewhere, and is imported when a command runs.
"""

from __future__ import annotations

import logging
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from openvino_llama import __version__
from openvino_llama.errors import OpenVINOLlamaError

if TYPE_CHECKING:
    from openvino_llama.cli.pulling import Shelf
    from openvino_llama.server.settings import Settings
    from openvino_llama.sources import IndexedModel

__all__ = ["main"]


class _Commands(click.Group):
    """The commands, those of plugins included; this project's errors become a line on stderr and exit code 1."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *self._of_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self._of_plugins().get(cmd_name)

    def _of_plugins(self) -> dict[str, click.Command]:
        return {command.name: command for command in _plugins().commands() if command.name}

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except OpenVINOLlamaError as error:
            if ctx.params.get("verbose"):
                logging.getLogger(__name__).error("the error behind it", exc_info=error)
            raise click.ClickException(str(error)) from None
        except BrokenPipeError:
            raise  # click's own
        except OSError as error:
            raise click.ClickException(f"{error.filename or 'the system'}: {error.strerror or error}") from None


class _Command(click.Command):
    """A command whose help ends with an example."""

    def __init__(self, *arguments: Any, example: str = "", **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        with formatter.section("Example"):
            for line in self.example.splitlines():
                formatter.write(f"  {line.strip()}\n")


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="ovllama")
@click.option("-v", "--verbose", is_flag=True, help="Log more, and the causes of errors.")
def main(*, verbose: bool) -> None:
    """OpenVINO-Llama: serve models on Intel hardware, every model's code in a WebAssembly sandbox."""
    level = logging.DEBUG if verbose else logging.WARNING
    logging.basicConfig(level=level, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)


def _example(text: str) -> dict[str, Any]:
    return {"cls": _Command, "example": text}


_registry = click.option(
    "--registry", type=click.Path(path_type=Path), help="The registry of models.  [default: models/registry.json]"
)
_mirror = click.option(
    "--mirror",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A folder whose files are taken first, by their sha256.",
)


@main.command(**_example("ovllama serve --registry models/registry.json --port 3000"))
@_registry
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.  [default: 3000]")
@click.option("--root-path", help="What a proxy in front takes off the path.")
@click.option("--max-batch-size", type=int, help="Requests in one inference.  [default: 8]")
@click.option("--max-sequence-length", type=int, help="Tokens of an input that is a sequence.  [default: 2048]")
@click.option("--max-body-bytes", type=int, help="Largest inference request.  [default: 32 MiB]")
@click.option("--max-bodies-bytes", type=int, help="All inference requests in progress.  [default: 1 GiB]")
@click.option("--max-upload-bytes", type=int, help="Largest upload of a model.  [default: 4 GiB]")
@click.option("--stop-seconds", type=int, help="What requests have left to end after SIGTERM.  [default: 60]")
@click.option("--cache-dir", help="Where compiled models are kept; '' switches the cache off.")
@click.option("--cors-origin", "cors_origins", multiple=True, help="A site whose pages may use the server.")
@click.option("--disable-plugin", "disabled_plugins", multiple=True, help="A plugin that is not to be loaded.")
@click.option("--default-model", "defaults", multiple=True, metavar="TYPE=NAME", help="The model active at start.")
@click.option("--access-log", is_flag=True, default=None, help="A line on stderr for each request.")
def serve(defaults: Sequence[str], **options: Any) -> None:
    """Serve the models of a registry over HTTP.

    Prints one line with the address when the models are loaded. SIGTERM or Ctrl-C finishes what was accepted; a second
    one ends at once.
    """
    from openvino_llama.server.serving import serve as run

    chosen = dict(_pair(each, "--default-model", "TYPE=NAME") for each in defaults)
    given = {name: value for name, value in options.items() if value != ()}
    settings = _settings(default_models=chosen, **given)
    raise SystemExit(run(settings, on_ready=lambda address: click.echo(f"OpenVINO-Llama serves on {address}")))


@main.command(**_example("ovllama infer mobilenet_v2 cat.jpg top_k=3"))
@click.argument("model")
@click.argument("given", metavar="FILE|TEXT")
@click.argument("parameters", nargs=-1, metavar="[NAME=VALUE]...")
@_registry
@click.option("--media-type", help="What the file is; guessed from its name.")
@click.option("--accept", help="The wanted media type of the answer.")
@click.option("-o", "--output", type=click.Path(path_type=Path, allow_dash=True), default="-", help="Where to write.")
def infer(model: str, given: str, parameters: Sequence[str], **options: Any) -> None:
    """Run one inference without a server: over a file, - for stdin, or over a text."""
    from openvino_llama.cli.oneshot import Task, infer_once

    values = dict(_pair(each, "a parameter") for each in parameters)
    output: Path = options.pop("output")
    settings = _settings(registry=options.pop("registry"))
    to_terminal = str(output) == "-" and sys.stdout.isatty()
    task = Task(model=model, given=given, parameters=values, to_terminal=to_terminal, **options)
    content = infer_once(settings, task)
    with click.open_file(str(output), "wb") as target:
        target.write(content)


@main.command(**_example("ovllama models --registry models/registry.json"))
@_registry
def models(registry: Path | None) -> None:
    """List the models of the registry, and what is wrong with it: entries, and files that are not there."""
    from openvino_llama.cli.registry import list_models, open_registry
    from openvino_llama.sources import names_in

    path = _settings(registry=registry).registry
    found = list_models(open_registry(path), lambda: names_in(_plugins().model_indexes()))
    for line in found.lines:
        click.echo(line)
    for problem in found.problems:
        click.secho(problem, fg="red", err=True)
    if found.to_pull:
        click.echo(f"not pulled yet: ovllama pull {' '.join(found.to_pull)}{_option(registry)}", err=True)
    if not found.lines and not found.problems:
        click.echo(f"{path} has no models; ovllama pull adds some", err=True)
    if found.problems or found.to_pull:
        raise SystemExit(1)


@main.command(**_example("ovllama plugins"))
@click.option("--tracebacks", is_flag=True, help="Show where the failed ones failed.")
def plugins(*, tracebacks: bool) -> None:
    """List the installed plugins: loaded, failed and disabled."""
    found = _plugins().reports
    for report in found:
        kinds = ", ".join(report.model_types)
        click.echo(f"{report.name:<16} {report.distribution} {report.version}  {report.status}  {kinds}{report.reason}")
        if tracebacks and report.traceback:
            click.echo(report.traceback, err=True)
    if not found:
        click.echo("no plugin is installed: pip install openvino-llama-vision", err=True)


@main.command(**_example("ovllama pull document_orientation face_detection"))
@click.argument("names", nargs=-1, metavar="[NAME|SOURCE]...")
@_registry
@_mirror
@click.option("--starters", is_flag=True, help="All models that ovllama demo uses.")
@click.option("--weights", help="Store a converted model's weights as fp32, fp16, int8 or int4.")
@click.option("--name", help="For a SOURCE that no index knows (a GGUF file, a folder, hf:OWNER/REPO): its name.")
@click.option("--type", "model_type", help="With --name: the model's type.")
@click.option("--task", help="With --name: the model's task.")
def pull(names: Sequence[str], registry: Path | None, mirror: Path | None, **options: Any) -> None:
    """Fetch models into the registry's folder and add them to it; without NAMES, list those that are known."""
    from openvino_llama.cli.pulling import Shelf

    shelf = Shelf(_plugins(), _settings(registry=registry).registry, mirror)
    new = {option: options[option] for option in ("name", "model_type", "task") if options[option]}
    models = _given(shelf, names, new) if new else _chosen(shelf, names, starters=options["starters"])
    changes = {"weights": options["weights"]} if options["weights"] else {}
    for name, model in models.items():
        entry = shelf.pull(name, model.with_options(changes))
        click.echo(f"{name} is there: ovllama infer {name} {shelf.what_it_takes(entry)}{_option(registry)}")


@main.command(**_example("ovllama remove face_detection"))
@click.argument("names", nargs=-1, required=True)
@_registry
def remove(names: Sequence[str], registry: Path | None) -> None:
    """Take models out of the registry; their files stay where they are."""
    from openvino_llama.registry import remove_entry

    for name in names:
        remove_entry(_settings(registry=registry).registry, name)


@main.command(**_example("ovllama demo"))
@_registry
@_mirror
@click.option("--port", type=int, help="Port to listen on; 0 picks a free one.  [default: 3000]")
@click.option("--exit", "leave", is_flag=True, help="Stop after the requests instead of serving on.")
def demo(registry: Path | None, mirror: Path | None, port: int | None, *, leave: bool) -> None:
    """Pull the starter models, serve them, send a real request to each and keep serving."""
    from openvino_llama.cli.demo import show
    from openvino_llama.cli.pulling import Shelf
    from openvino_llama.server.serving import serve as run

    settings = _settings(registry=registry, port=port)
    shelf = Shelf(_plugins(), settings.registry, mirror)
    starters = shelf.starters(lambda line: click.echo(line, err=True))
    for name, model in starters.items():
        shelf.pull(name, model)
    samples = settings.registry.with_name("samples")
    raise SystemExit(run(settings, on_ready=lambda address: show(address, starters, samples, click.echo), leave=leave))


@main.command(
    context_settings={"ignore_unknown_options": True},
    **_example("ovllama run classify.wasm --dir .::/data --nn-graph net=model.onnx -- /data/tensor.bin"),
)
@click.argument("guest", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "--dir", "dirs", multiple=True, metavar="HOST::GUEST", help="A folder that the guest may read; with ::rw, change."
)
@click.option("--nn-graph", "graphs", multiple=True, metavar="NAME=PATH", help="A model that load_by_name finds.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="A variable that the guest sees.")
@click.option("--timeout", "deadline_s", type=float, help="Seconds that the guest may run.")
@click.option("--early-tensor-types", is_flag=True, help="For guests of the first wasi-nn: u8 is 2 and i32 is 3.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run(
    guest: Path,
    dirs: Sequence[str],
    graphs: Sequence[str],
    environment: Sequence[str],
    arguments: Sequence[str],
    **options: Any,
) -> None:
    """Run any WASI preview1 command module that uses wasi_ephemeral_nn, with OpenVINO behind it."""
    from openvino_llama.sandbox.command import Command, Directory, run_command

    command = Command(
        module=guest,
        arguments=tuple(arguments),
        directories=tuple(Directory.parse(each) for each in dirs),
        environment=dict(_pair(each, "--env") for each in environment),
        graphs={name: Path(path) for name, path in (_pair(each, "--nn-graph", "NAME=PATH") for each in graphs)},
        **options,
    )
    raise SystemExit(run_command(command))


def _settings(**options: Any) -> Settings:
    from openvino_llama.server.settings import Settings

    return Settings.from_environment(**options)


def _option(registry: Path | None) -> str:
    """What a command that is to be typed next needs besides, for the registry that this one was given."""
    return f" --registry {shlex.quote(str(registry))}" if registry else ""


def _plugins() -> Any:
    from openvino_llama.plugins import load_plugins

    return load_plugins(_settings().disabled_plugins)


def _chosen(shelf: Shelf, names: Sequence[str], *, starters: bool) -> dict[str, IndexedModel]:
    """The models of these names, or all starters too; lists what is known if none is chosen."""
    known = shelf.known()
    unknown = next((name for name in names if name not in known), None)
    if unknown is not None:
        raise click.ClickException(f"no model {unknown!r} is known; ovllama pull lists those that are")
    if not names and not starters:
        for name, model in known.items():
            click.echo(f"{name:<24} {model.description} ({model.license})")
    wanted = [*names, *(name for name, model in known.items() if starters and model.starter)]
    return {name: known[name] for name in wanted}


def _given(shelf: Shelf, sources: Sequence[str], new: dict[str, str]) -> dict[str, IndexedModel]:
    """The model that no index knows."""
    if len(sources) != 1 or len(new) != 3:
        raise click.UsageError("a model that no index knows needs one SOURCE, --name, --type and --task")
    entry = {"type": new["model_type"], "task": new["task"]}
    return {new["name"]: shelf.describe(new["name"], sources[0], entry)}


def _pair(text: str, option: str, form: str = "NAME=VALUE") -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not separator or not name:
        raise click.BadParameter(f"{option} is {form}, not {text!r}")
    return name, value
