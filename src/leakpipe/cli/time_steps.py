"""`leakpipe time-steps`: measures how long a step of each attack with a budget takes, once."""

from pathlib import Path

import click

from leakpipe.cli.options import InputFile, threads_option, use_threads


@click.command(name="time-steps")
@click.argument("params", nargs=-1, type=InputFile, required=True)
@threads_option
def time_steps(params: tuple[Path, ...], threads: int) -> None:
    """Record the milliseconds of a step of every attack that has a `budget`, in step-times.json.

    PARAMS is params.yaml, followed by overlays. Budgets become iterations by this record alone, so that every later run
    takes the same steps, here or elsewhere; keep it with params.yaml. Steps that it holds already are not timed again.
    """
    use_threads(threads)
    from leakpipe.attacks.budgets import RECORD, budgeted, read_record, step_of
    from leakpipe.attacks.timing import observe_noise, seconds_per_iteration
    from leakpipe.cli.allocator import keep_freed_memory
    from leakpipe.client.local_update import LocalSettings
    from leakpipe.data.datasets import DATASETS
    from leakpipe.experiment.reading import load_params
    from leakpipe.files.storage import write_json
    from leakpipe.models.state import build_module, initial_state

    keep_freed_memory()
    checked = load_params(*params, timed=False)
    record, size = read_record(RECORD), checked.data.image_size
    contents = DATASETS[checked.data.dataset].contents(checked.data)
    classes = len(contents.classes) if contents else 2
    for attack, client, settings in budgeted(checked):
        step = step_of(checked, client, settings)
        if step not in record:
            victim, federation = checked.federation.clients[client], checked.federation
            observation = observe_noise(
                initial_state(build_module(checked.model, classes=classes, image_size=size), seed=0),
                LocalSettings(
                    learning_rate=victim.learning_rate or federation.learning_rate,
                    batch_norm_momentum=federation.batch_norm_momentum,
                    training=victim.training or federation.training,
                ),
                images=victim.images,
                batch_size=victim.batch_size,
                epochs=victim.local_epochs or federation.local_epochs,
                size=size,
                classes=classes,
            )
            record[step] = round(1000 * seconds_per_iteration(observation, settings), 3)
            write_json(RECORD, record)
        click.echo(f"{attack} on {client}: {record[step]} ms a step")
