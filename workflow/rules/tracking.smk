# Inputs:  run records of all jobs, the headline numbers, tables, figures and the report
# Outputs: tracked.json: what went to MLflow. An MLflow that is away stops nothing: the next call tries again

TRACKED = f"{RESULTS}/tracked.json"


rule track:
    input:
        records=RECORDS,
        metrics=TABLES["metrics"],
        artifacts=[
            TABLES["leakage"],
            TABLES["accuracy"],
            *IDENTIFIED,
            VERDICTS,
            DIFFERENCES,
            CLAIMS,
            PRIVACY,
            DEFENSE_TABLE,
            *FIGURES,
            REPORT,
        ],
    output:
        tracked=TRACKED,
    log:
        f"{LOG}/track.log",
    benchmark:
        f"{BENCHMARK}/track.tsv"
    priority: -1
    localrule: True
    threads: 1
    resources:
        mem_mb=1000,
    params:
        experiment=EXPERIMENT,
        params=literally(WHOLE_PARAMS),
        values=VALUES_HASH,
        artifacts=lambda w, input: flags("--artifact", input.artifacts),
        attempt=count_attempts(TRACKED),
        code=code_version("leakpipe.cli.track"),
    shell:
        """
        leakpipe track {input.records} \
            --experiment {params.experiment:q} \
            --params {params.params:q} \
            --metrics {input.metrics} \
            {params.artifacts} \
            --attempt {params.attempt} \
            --best-effort \
            --out {output.tracked} \
            2>{log}
        """
