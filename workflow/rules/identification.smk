# Inputs:  reconstructions, their scores, true images, for the embedder `global-model` the captured global models
# Outputs: identification/<defence>/<attack>.csv; nothing without identifiability.embedders

IDENTIFICATION = f"{RESULTS}/identification/{{defense}}/{{attack}}.csv"
IDENTIFICATION_RECORD = f"{RECORD}/identify/{{defense}}/{{attack}}.json"


rule identify:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=splits_to_score,
        scores=SCORE,
        reconstructions=reconstructions_to_score,
        reconstruction_sidecars=lambda w: sidecars(reconstructions_to_score(w)),
        models=models_to_identify,
        model_sidecars=lambda w: sidecars(models_to_identify(w)),
    output:
        table=IDENTIFICATION,
        record=IDENTIFICATION_RECORD,
    log:
        f"{LOG}/identify/{{defense}}/{{attack}}.log",
    benchmark:
        f"{BENCHMARK}/identify/{{defense}}/{{attack}}.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(2000),
    params:
        identifiability=to_json(PARAMS.identifiability),
        splits=lambda w, input: flags("--split", input.splits),
        reconstructions=lambda w, input: flags("--reconstruction", input.reconstructions),
        models=lambda w, input: flags("--global-model", input.models),
        labels=label_wildcards,
        code=code_version("leakpipe.cli.identify"),
    shell:
        """
        leakpipe identify \
            --identifiability {params.identifiability:q} \
            --images {input.images} \
            {params.splits} \
            --scores {input.scores} \
            {params.reconstructions} \
            {params.models} \
            --out {output.table} \
            --threads {threads} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


IDENTIFIED_CELLS = SCORED if PARAMS.identifiability.embedders else []
IDENTIFICATIONS = [IDENTIFICATION.format(defense=defense, attack=attack) for defense, attack in IDENTIFIED_CELLS]
IDENTIFICATION_RECORDS = [
    IDENTIFICATION_RECORD.format(defense=defense, attack=attack) for defense, attack in IDENTIFIED_CELLS
]
