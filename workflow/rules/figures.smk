# Inputs:  leakage.csv, accuracy.csv; for figures with pictures also the images of the last captured round
# Outputs: figures/<name>.svg, .png and .txt (the caption), <name> being one of the parameters' `figures`

from collections import Counter

from leakpipe.figures.catalog import EFFECT, describe_figure, list_figures, name_command

# The first attack is what the experiment is about, the others are what it is compared with; the overview is of
# a seed under which most clients were attacked.
ATTACK, *OTHER_ATTACKS = PARAMS.attacks
DRAWN = [cell for cell in CELLS if cell.attack == ATTACK]
DRAWN_UNDEFENDED = CELLS_OF.get((UNDEFENDED, ATTACK), [])
OVERVIEW_SEED = max(PARAMS.seeds, key=Counter(cell.seed for cell in DRAWN_UNDEFENDED).__getitem__)
COMPARED = PARAMS.model_dump()["comparisons"]
FIGURE = f"{RESULTS}/figures"
FIGURE_NAMES = list_figures(PARAMS.figures, COMPARED)
FIGURES = expand(f"{FIGURE}/{{name}}.{{kind}}", name=FIGURE_NAMES, kind=["svg", "png"])

# What each figure reads and is told, beside the clients: options of `leakpipe plot <name>`.
LEAKS = {"leakage": LEAKAGE}
LEAKS_AND_ACCURACY = {**LEAKS, "accuracy": TABLES["accuracy"]}
SPLIT_IMAGES = {"images": IMAGES, "split": SPLIT.format(seed=OVERVIEW_SEED), "sidecars": sidecars(IMAGES)}
READS = {
    "overview": {**LEAKS, **SPLIT_IMAGES},
    "reconstructions": {**LEAKS, **pictures(DRAWN)},
    "maps": {**LEAKS, **pictures(DRAWN_UNDEFENDED)},
    "rounds": LEAKS,
    "noise": LEAKS_AND_ACCURACY,
    "clients": LEAKS,
    "identifiability": {"table": IDENTIFIABILITY},
    "tradeoff": {**LEAKS_AND_ACCURACY, "table": DEFENSE_TABLE},
    "front": {"table": DEFENSE_TABLE},
    "bound": {
        "table": IDENTIFIABILITY,
        "privacy": PRIVACY,
        "images": IMAGES,
        "split": expand(SPLIT, seed=PARAMS.seeds),
        "sidecars": sidecars(IMAGES),
    },
    "attacks": LEAKS,
    **{f"{EFFECT}{name}": LEAKS for name in COMPARED},
}
DEFENSES = to_json(PARAMS.defenses)
SETTINGS = {
    "overview": {"attack": ATTACK, "defense": UNDEFENDED, "round": max(ROUNDS)},
    "reconstructions": {"attack": ATTACK, "defenses": DEFENSES, "round": max(ROUNDS)},
    "maps": {"attack": ATTACK, "defense": UNDEFENDED, "round": max(ROUNDS)},
    "rounds": {"attack": ATTACK, "compare": OTHER_ATTACKS, "defense": UNDEFENDED},
    "noise": {"attack": ATTACK, "defenses": DEFENSES},
    "clients": {"attack": ATTACK, "defense": UNDEFENDED, "local-epochs": PARAMS.federation.local_epochs},
    "identifiability": {
        "attack": ATTACK,
        "defense": UNDEFENDED,
        "identifiability": to_json(PARAMS.identifiability),
    },
    "tradeoff": {"attack": ATTACK, "defenses": DEFENSES},
    "front": {"defenses": DEFENSES},
    "bound": {
        "defenses": DEFENSES,
        "client": HIGH_RISK,
        "embedder": PARAMS.identifiability.embedders[:1],
        "delta": str(PARAMS.privacy.delta),
        "attack": [*PARAMS.attacks],
    },
    "attacks": {"attack": [*PARAMS.attacks], "defense": UNDEFENDED},
    **{f"{EFFECT}{name}": {"comparison": to_json(entry), "defense": UNDEFENDED} for name, entry in COMPARED.items()},
}


rule plot:
    input:
        unpack(lambda w: READS[w.figure]),
    output:
        svg=report(
            f"{FIGURE}/{{figure}}.svg",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda w: {"figure": describe_figure(w.figure, COMPARED).heading, "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels=lambda w: {"figure": describe_figure(w.figure, COMPARED).heading, "format": "PNG"},
        ),
        caption=f"{FIGURE}/{{figure}}.txt",
        record=f"{RECORD}/plot/{{figure}}.json",
    log:
        f"{LOG}/plot/{{figure}}.log",
    benchmark:
        f"{BENCHMARK}/plot/{{figure}}.tsv"
    wildcard_constraints:
        figure="|".join(map(re.escape, FIGURE_NAMES)),
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        name=lambda w: name_command(w.figure),
        about=lambda w: describe_figure(w.figure, COMPARED).about,
        clients=to_json(PARAMS.federation.clients),
        files=lambda w, input: options({name: path for name, path in input.items() if name != "sidecars"}),
        settings=lambda w: options(SETTINGS[w.figure]),
        labels=label_wildcards,
        code=lambda w: code_version(f"leakpipe.cli.plot_{name_command(w.figure)}"),
    shell:
        """
        leakpipe plot {params.name} \
            --clients {params.clients:q} \
            {params.files} \
            {params.settings:q} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule figures:
    input:
        FIGURES,
