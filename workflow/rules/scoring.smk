# Inputs:  reconstructions, true images
# Outputs: scores/<defence>/<attack>.csv

SCORED = sorted(CELLS_OF)
SCORES = [SCORE.format(defense=defense, attack=attack) for defense, attack in SCORED]
SCORE_RECORD = f"{RECORD}/score/{{defense}}/{{attack}}.json"


rule score:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=splits_to_score,
        reconstructions=reconstructions_to_score,
        reconstruction_sidecars=lambda w: sidecars(reconstructions_to_score(w)),
    output:
        scores=SCORE,
        record=SCORE_RECORD,
    log:
        f"{LOG}/score/{{defense}}/{{attack}}.log",
    benchmark:
        f"{BENCHMARK}/score/{{defense}}/{{attack}}.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        splits=lambda w, input: flags("--split", input.splits),
        reconstructions=lambda w, input: flags("--reconstruction", input.reconstructions),
        scoring=to_json(PARAMS.scoring),
        labels=label_wildcards,
        code=code_version("leakpipe.cli.score"),
    shell:
        """
        leakpipe score \
            --images {input.images} \
            {params.splits} \
            {params.reconstructions} \
            --scoring {params.scoring:q} \
            --out {output.scores} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """
