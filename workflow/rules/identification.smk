# Inputs:  reconstructions, their scores, true images, for the embedder `global-model` the captured global models
# Outputs: identification/<defence>/<attack>.csv; nothing without identifiability.embedders

IDENTIFICATION = f"{RESULTS}/identification/{{defense}}/{{attack}}.csv"
IDENTIFICATION_RECORD = f"{RECORD}/identify/{{defense}}/{{attack}}.json"


# The embedder `global-model` needs the model that each reconstruction was attacked at.
AT_MODELS = "global-model" in PARAMS.identifiability.embedders

for MADE_OF, PAIRS in SCORE_JOBS:
    MODELS = in_scored_cells(GLOBAL_MODEL, MADE_OF) if AT_MODELS else []

    rule:
        name:
            f"identify_{'_'.join(PAIRS[0])}"
        input:
            images=IMAGES,
            sidecar=sidecars(IMAGES),
            splits=fill_each(SPLIT, "seed", sorted({seed for seed, _ in MADE_OF})),
            scores=fill_pairs([SCORE], PAIRS),
            reconstructions=sidecars(fill_pairs(in_scored_cells(RECONSTRUCTION, MADE_OF), PAIRS)),
            models=sidecars(unique(fill_pairs(MODELS, PAIRS))),
        output:
            update(fill_pairs([IDENTIFICATION, IDENTIFICATION_RECORD], PAIRS)),
        log:
            f"{LOG}/identify/{'_'.join(PAIRS[0])}.log",
        benchmark:
            f"{BENCHMARK}/identify/{'_'.join(PAIRS[0])}.tsv"
        threads: 1
        resources:
            **granted("identify", mem_mb=memory_mb(2000)),
        params:
            identifiability=literally(to_json(PARAMS.identifiability)),
            splits=lambda w, input: flags("--split", input.splits),
            reconstructions=literally(flags("--reconstruction", in_scored_cells(RECONSTRUCTION, MADE_OF))),
            models=literally(flags("--global-model", MODELS)),
            files=literally(options({"scores": SCORE, "out": IDENTIFICATION, "record": IDENTIFICATION_RECORD})),
            each=each_pair(PAIRS),
            labels=labels(),
            code=code_version("leakpipe.cli.identify"),
        shell:
            """
            leakpipe identify \
                --identifiability {params.identifiability:q} \
                --images {input.images} \
                {params.splits} \
                {params.reconstructions:q} \
                {params.models:q} \
                {params.files:q} \
                --threads {threads} \
                {params.each} {params.labels:q} \
                2>{log}
            """


IDENTIFIED_CELLS = SCORED if PARAMS.identifiability.embedders else []
IDENTIFICATIONS = [IDENTIFICATION.format(defense=defense, attack=attack) for defense, attack in IDENTIFIED_CELLS]
IDENTIFICATION_RECORDS = [
    IDENTIFICATION_RECORD.format(defense=defense, attack=attack) for defense, attack in IDENTIFIED_CELLS
]
