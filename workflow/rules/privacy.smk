# Inputs:  parameters; leakage.csv, accuracy.csv, the test labels
# Outputs: privacy.csv: what each defence guarantees; defenses.csv: what it hides, costs and guarantees

from leakpipe.experiment import adaptive_attacks, high_risk_client

PRIVACY = f"{RESULTS}/privacy.csv"
DEFENSE_TABLE = f"{RESULTS}/defenses.csv"
HIGH_RISK = high_risk_client(PARAMS)
ADAPTIVE = adaptive_attacks(PARAMS)


rule account:
    output:
        table=shown(PRIVACY, "Privacy budgets"),
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


rule compare_defenses:
    input:
        leakage=LEAKAGE,
        accuracy=TABLES["accuracy"],
        privacy=PRIVACY,
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=expand(SPLIT, seed=PARAMS.seeds),
    output:
        table=shown(DEFENSE_TABLE, "Defences: leakage against accuracy"),
        record=f"{RECORD}/compare_defenses.json",
    log:
        f"{LOG}/compare_defenses.log",
    benchmark:
        f"{BENCHMARK}/compare_defenses.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        splits=lambda w, input: flags("--split", input.splits),
        client=HIGH_RISK,
        defenses=flags("--defense", name_defenses(PARAMS.model_dump()["defenses"])),
        adaptive=flags("--adaptive", ADAPTIVE),
        labels=labels(),
        code=code_version("leakpipe.cli.compare_defenses"),
    shell:
        """
        leakpipe compare-defenses \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            --privacy {input.privacy} \
            --images {input.images} \
            {params.splits} \
            --client {params.client} \
            {params.defenses} \
            {params.adaptive} \
            --out {output.table} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """
