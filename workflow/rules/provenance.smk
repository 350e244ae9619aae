# Inputs:  run records of all jobs, CITATION.cff
# Outputs: ro-crate-metadata.json (every file with its SHA-256 and the job that made it), params.json and Snakefile, as run

CRATE = f"{RESULTS}/ro-crate-metadata.json"
RUN_PARAMS = f"{RESULTS}/params.json"
RUN_WORKFLOW = f"{RESULTS}/Snakefile"
RECORDS = [
    rules.prepare_data.output.record,
    *expand(SPLIT_RECORD, seed=PARAMS.seeds),
    *PRETRAINING_RECORDS,
    *expand(FEDERATION_RECORD, defense=PARAMS.defenses, seed=PARAMS.seeds),
    *ATTACK_RECORDS,
    *[SCORE_RECORD.format(defense=defense, attack=attack) for defense, attack in SCORED],
    *IDENTIFICATION_RECORDS,
    rules.collect.output.record,
    rules.judge.output.record,
    *FIGURE_RECORDS,
    rules.report.output.record,
]


rule crate:
    input:
        records=RECORDS,
    output:
        crate=CRATE,
        params=RUN_PARAMS,
        workflow=RUN_WORKFLOW,
    log:
        f"{LOG}/crate.log",
    benchmark:
        f"{BENCHMARK}/crate.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        params=literally(WHOLE_PARAMS),
        citation=literally(to_json(read_yaml(fetched("CITATION.cff")))),  # no inputs: Snakemake may not be able to
        snakefile=literally(fetched("workflow/Snakefile").read_text(encoding="utf-8")),  # name them
        values=VALUES_HASH,
        code=code_version("leakpipe.cli.crate"),
    shell:
        """
        leakpipe crate {input.records} \
            --params {params.params:q} \
            --citation {params.citation:q} \
            --workflow {params.snakefile:q} \
            --params-out {output.params} \
            --workflow-out {output.workflow} \
            --out {output.crate} \
            2>{log}
        """


# All that the pipeline makes for readers. `rule all` and stage `evaluation` of dvc.yaml ask for it.
PRODUCTS = [*TABLES.values(), *JUDGED, *IDENTIFIED, *FIGURES, REPORT, CRATE]


rule evaluation:
    input:
        PRODUCTS,
