"""`leakpipe pretrain`: train the network on the public images, for a federation to start from."""

from pathlib import Path
from typing import Any

import click

from leakpipe.cli.options import (
    InputFile,
    OutputFile,
    device_option,
    record_options,
    settings_option,
    threads_option,
    use_device,
    use_threads,
)
from leakpipe.cli.terminal import progress_bar


@click.command()
@settings_option("model", "The `model` section")
@click.option("--images", type=InputFile, required=True, help="The data set (prepare-data's output).")
@click.option("--split", type=InputFile, required=True, help="The split (split-data's output); its seed is used.")
@click.option("--out", type=OutputFile, required=True, help="Where the model goes (.safetensors).")
@threads_option
@device_option
@record_options
def pretrain(
    model: dict[str, Any],
    images: Path,
    split: Path,
    out: Path,
    threads: int,
    device: str,
    record: Path | None,
    labels: dict[str, Any],
) -> None:
    """Train on the public part, which no client holds; the validation part only watches."""
    use_threads(threads)
    where = use_device(device)
    import torch

    from leakpipe.data.files import load_dataset, load_split
    from leakpipe.federation.files import save_model
    from leakpipe.federation.pretraining import Epoch
    from leakpipe.federation.pretraining import pretrain as train
    from leakpipe.federation.simulate import measure_accuracy
    from leakpipe.models.catalog import MODELS
    from leakpipe.models.pretrained import pretrained_state
    from leakpipe.models.state import build_module
    from leakpipe.params.models import ModelParams
    from leakpipe.params.reading import parse_section
    from leakpipe.randomness import derive_seed
    from leakpipe.records.run_record import record_run

    with record_run(record, rule="pretrain", labels=labels, params=model) as run:
        run.details["device"] = str(where)
        params = parse_section(ModelParams, model, source="--model", known={MODELS.kind: MODELS})
        settings = params.pretraining
        dataset = load_dataset(images)
        parts, seed = load_split(split, images=len(dataset.images))
        pixels, classes = (torch.from_numpy(array).to(where) for array in (dataset.images, dataset.labels))
        built = {"classes": len(dataset.classes), "image_size": dataset.images.shape[-1]}
        initial = pretrained_state(
            params, settings.start, build_module(params, **built), seed=derive_seed("model", seed)
        )
        public = torch.tensor(parts.public, device=where)
        curves: dict[str, list[float]] = {"loss": []}

        with progress_bar(settings.epochs, "pretrain", "epoch") as bar:

            def show(epoch: Epoch) -> None:
                curves["loss"].append(epoch.loss)
                if parts.validation:
                    accuracy = measure_accuracy(epoch.state, pixels, classes, parts.validation)
                    curves.setdefault("validation_accuracy", []).append(accuracy)
                bar.set_postfix({name: f"{values[-1]:.3f}" for name, values in curves.items()}, refresh=False)
                bar.update()

            order = derive_seed("pretrain", seed)
            state = train(initial.to(where), pixels[public], classes[public], settings, seed=order, on_epoch=show)
        save_model(out, state, params=params, **built)
        for name, values in curves.items():
            run.add_curve(name, range(1, settings.epochs + 1), values)
            run.metrics[name] = values[-1]
        run.metrics["public_accuracy"] = measure_accuracy(state, pixels, classes, parts.public)
