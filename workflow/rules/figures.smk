# Inputs:  the tables that the figures read; for figures with pictures also images, splits and reconstructions
# Outputs: figures/<name>.svg, .png and .txt (the caption), <name> being one of the parameters' `figures`

from leakpipe.figures.registry import find_figure, list_figures
from leakpipe.figures.settings import choose_settings

FIGURE = f"{RESULTS}/figures"
COMPARISONS = PARAMS.model_dump(mode="json")["comparisons"]
FIGURE_NAMES = list_figures(PARAMS.figures, COMPARISONS)
DRAWN = [find_figure(name, COMPARISONS) for name in FIGURE_NAMES]
FIGURES = expand(f"{FIGURE}/{{name}}.{{kind}}", name=FIGURE_NAMES, kind=["svg", "png"])
FIGURE_RECORDS = expand(f"{RECORD}/plot/{{name}}.json", name=FIGURE_NAMES)
SETTINGS = choose_settings(PARAMS)
TAKEN = {name: SETTINGS[name] for drawn in DRAWN for name in drawn.takes if name in SETTINGS}
READ = {field for drawn in DRAWN for field in drawn.files}
# The files that options of `leakpipe plot` name; a pattern stands for the reconstructions.
FIGURE_FILES = {
    "leakage": LEAKAGE,
    "accuracy": TABLES["accuracy"],
    "identifiability": IDENTIFIABILITY,
    "defense_table": DEFENSE_TABLE,
    "privacy": PRIVACY,
    "images": IMAGES,
    "splits": expand(SPLIT, seed=PARAMS.seeds),
}
REBUILT = [RECONSTRUCTION.format(round=max(ROUNDS), **vars(cell)) for cell in CELLS]


# One job draws all: a figure takes less time than starting Python and importing matplotlib does.
rule plot:
    input:
        **{name: path for name, path in FIGURE_FILES.items() if name in READ},
        reconstructions=REBUILT if "reconstruction" in READ else [],
        sidecars=[
            *sidecars([IMAGES] if "images" in READ else []),
            *sidecars(REBUILT if "reconstruction" in READ else []),
        ],
    output:
        svg=[shown_figure(drawn, "svg") for drawn in DRAWN],
        png=[shown_figure(drawn, "png") for drawn in DRAWN],
        captions=expand(f"{FIGURE}/{{name}}.txt", name=FIGURE_NAMES),
        records=FIGURE_RECORDS,
    log:
        f"{LOG}/plot.log",
    benchmark:
        f"{BENCHMARK}/plot.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        names=FIGURE_NAMES,
        about={drawn.heading: drawn.about for drawn in DRAWN},
        files=lambda w: options(
            {
                {"splits": "split"}.get(name, name.replace("_", "-")): path
                for name, path in {**FIGURE_FILES, "reconstruction": RECONSTRUCTION}.items()
                if name in READ
            }
        ),
        settings=to_json(TAKEN),
        comparisons=to_json(COMPARISONS if "effects" in PARAMS.figures else {}),
        folder=literally(FIGURE),
        records=literally(f"{RECORD}/plot"),
        labels=labels(),
        code=sorted(map(code_version, {"leakpipe.cli.plot", *[drawn.module for drawn in DRAWN]})),
    shell:
        """
        leakpipe plot {params.names} \
            --settings {params.settings:q} \
            --comparisons {params.comparisons:q} \
            {params.files:q} \
            --folder {params.folder} \
            --records {params.records} {params.labels:q} \
            2>{log}
        """


rule figures:
    input:
        FIGURES,
