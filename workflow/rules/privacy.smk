# Inputs:  parameters; leakage.csv, accuracy.csv, the test labels
# Outputs: privacy.csv: what each defence guarantees; defenses.csv: what it hides, costs and guarantees

PRIVACY = f"{RESULTS}/privacy.csv"


rule account:
    output:
        table=PRIVACY,
        record=f"{RECORD}/account.json",
    log:
        f"{LOG}/account.log",
    benchmark:
        f"{BENCHMARK}/account.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        defenses=to_json(PARAMS.defenses),
        federation=to_json(PARAMS.federation),
        privacy=to_json(PARAMS.privacy),
        labels=labels(),
        code=code_version("leakpipe.cli.account"),
    shell:
        """
        leakpipe account \
            --defenses {params.defenses:q} \
            --federation {params.federation:q} \
            --privacy {params.privacy:q} \
            --out {output.table} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """
