# Inputs:  leakage.csv, accuracy.csv
# Outputs: differences.csv: attacks, clients and defences draw by draw; claims.json: the paper's claims and verdicts

from leakpipe.defenses.naming import name_defenses

DIFFERENCES = f"{RESULTS}/differences.csv"
CLAIMS = f"{RESULTS}/claims.json"


rule compare:
    input:
        leakage=LEAKAGE,
    output:
        differences=shown(DIFFERENCES, "Paired differences"),
        record=f"{RECORD}/compare.json",
    log:
        f"{LOG}/compare.log",
    benchmark:
        f"{BENCHMARK}/compare.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        attacks=flags("--attack", PARAMS.attacks),
        clients=flags("--client", ATTACKED),
        defenses=flags("--defense", name_defenses(PARAMS.model_dump()["defenses"])),
        labels=labels(),
        code=code_version("leakpipe.cli.compare"),
    shell:
        """
        leakpipe compare \
            --leakage {input.leakage} \
            {params.attacks} \
            {params.clients} \
            {params.defenses} \
            --out {output.differences} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule judge_claims:
    input:
        leakage=LEAKAGE,
        accuracy=TABLES["accuracy"],
    output:
        claims=shown(CLAIMS, "The paper's claims, judged"),
        record=f"{RECORD}/judge_claims.json",
    log:
        f"{LOG}/judge_claims.log",
    benchmark:
        f"{BENCHMARK}/judge_claims.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        claims=flags("--claims", [to_json(PARAMS.claims)] if PARAMS.claims else []),
        defenses=to_json(PARAMS.defenses),
        labels=labels(),
        code=code_version("leakpipe.cli.judge_claims"),
    shell:
        """
        leakpipe judge-claims \
            {params.claims:q} \
            --defenses {params.defenses:q} \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            --out {output.claims} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule judging:
    input:
        DIFFERENCES,
        CLAIMS,
