# Inputs:  reconstructions, true images
# Outputs: scores/<defence>/<attack>.csv

SCORED = sorted(CELLS_OF)
SCORES = [SCORE.format(defense=defense, attack=attack) for defense, attack in SCORED]
SCORE_RECORD = f"{RECORD}/score/{{defense}}/{{attack}}.json"
SCORE_JOBS = workload.scoring_jobs(PARAMS)

for MADE_OF, PAIRS in SCORE_JOBS:

    rule:
        name:
            f"score_{'_'.join(PAIRS[0])}"
        input:
            images=IMAGES,
            sidecar=sidecars(IMAGES),
            splits=fill_each(SPLIT, "seed", sorted({seed for seed, _ in MADE_OF})),
            reconstructions=sidecars(fill_pairs(in_scored_cells(RECONSTRUCTION, MADE_OF), PAIRS)),
        output:
            update(fill_pairs([SCORE, SCORE_RECORD], PAIRS)),
        log:
            f"{LOG}/score/{'_'.join(PAIRS[0])}.log",
        benchmark:
            f"{BENCHMARK}/score/{'_'.join(PAIRS[0])}.tsv"
        threads: 1
        resources:
            **granted("score", mem_mb=memory_mb(1000)),
        params:
            splits=lambda w, input: flags("--split", input.splits),
            reconstructions=literally(flags("--reconstruction", in_scored_cells(RECONSTRUCTION, MADE_OF))),
            scoring=literally(to_json(PARAMS.scoring)),
            files=literally(options({"out": SCORE, "record": SCORE_RECORD})),
            each=each_pair(PAIRS),
            labels=labels(),
            code=code_version("leakpipe.cli.score"),
        shell:
            """
            leakpipe score \
                --images {input.images} \
                {params.splits} \
                {params.reconstructions:q} \
                --scoring {params.scoring:q} \
                {params.files:q} {params.each} {params.labels:q} \
                2>{log}
            """
