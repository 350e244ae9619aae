# Inputs:  reconstructions, true images, run records of attacks, accuracy histories
# Outputs: scores/<defence>/<attack>.csv, then leakage.csv, leakage.parquet, accuracy.csv, metrics.json;
#          attacks.csv where there is a figure of that name


SCORED = sorted({(cell.defense, cell.attack) for cell in CELLS})
SCORES = [SCORE.format(defense=defense, attack=attack) for defense, attack in SCORED]
LEAKAGE = f"{RESULTS}/leakage.csv"
TABLES = {
    "leakage": LEAKAGE,
    "parquet": f"{RESULTS}/leakage.parquet",
    "accuracy": f"{RESULTS}/accuracy.csv",
    "metrics": f"{RESULTS}/metrics.json",
}
# The means behind the figure of that name.
ATTACKS_TABLE, ATTACKS_RECORD = (
    ([f"{RESULTS}/attacks.csv"], [f"{RECORD}/compare_attacks.json"]) if "attacks" in PARAMS.figures else ([], [])
)


rule score:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=splits_to_score,
        reconstructions=reconstructions_to_score,
        reconstruction_sidecars=lambda w: sidecars(reconstructions_to_score(w)),
    output:
        scores=SCORE,
        record=f"{RECORD}/score/{{defense}}/{{attack}}.json",
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


rule collect:
    input:
        scores=SCORES,
        attacks=[rules.invert.output.record.format(**vars(cell)) for cell in CELLS],
        accuracies=expand(ACCURACY, defense=PARAMS.defenses, seed=PARAMS.seeds),
    output:
        leakage=shown(TABLES["leakage"], "Leakage of every image"),
        parquet=TABLES["parquet"],
        accuracy=shown(TABLES["accuracy"], "Accuracy after every round"),
        metrics=shown(TABLES["metrics"], "Headline metrics"),
        record=f"{RECORD}/collect.json",
    log:
        f"{LOG}/collect.log",
    benchmark:
        f"{BENCHMARK}/collect.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        scores=lambda w, input: flags("--score", input.scores),
        attacks=lambda w, input: flags("--attack-record", input.attacks),
        accuracies=lambda w, input: flags("--accuracy", input.accuracies),
        labels=labels(),
        code=code_version("leakpipe.cli.collect"),
    shell:
        """
        leakpipe collect \
            {params.scores} \
            {params.attacks} \
            {params.accuracies} \
            --leakage-csv {output.leakage} \
            --leakage-parquet {output.parquet} \
            --accuracy-csv {output.accuracy} \
            --metrics {output.metrics} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule compare_attacks:
    input:
        leakage=LEAKAGE,
    output:
        table=shown(f"{RESULTS}/attacks.csv", "Attacks compared"),
        record=f"{RECORD}/compare_attacks.json",
    log:
        f"{LOG}/compare_attacks.log",
    benchmark:
        f"{BENCHMARK}/compare_attacks.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        defense=UNDEFENDED,
        labels=labels(),
        code=code_version("leakpipe.cli.compare_attacks"),
    shell:
        """
        leakpipe compare-attacks \
            --leakage {input.leakage} \
            --defense {params.defense} \
            --out {output.table} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule scoring:
    input:
        list(TABLES.values()),
        ATTACKS_TABLE,
