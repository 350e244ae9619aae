# Inputs:  scores and look-ups, run records of attacks, accuracy histories; for the verdicts also images and splits
# Outputs: leakage.csv, leakage.parquet, accuracy.csv, metrics.json, headline.json, identifiability.csv (with embedders);
#          verdicts.csv, differences.csv, claims.json, privacy.csv, defenses.csv, attacks.csv (where there is a figure of that name)

from leakpipe.experiment.cells import adaptive_attacks, high_risk_client

LEAKAGE = f"{RESULTS}/leakage.csv"
TABLES = {
    "leakage": LEAKAGE,
    "parquet": f"{RESULTS}/leakage.parquet",
    "accuracy": f"{RESULTS}/accuracy.csv",
    "metrics": f"{RESULTS}/metrics.json",
    "headline": f"{RESULTS}/headline.json",
}
IDENTIFIABILITY = f"{RESULTS}/identifiability.csv"
IDENTIFIED = [IDENTIFIABILITY] if IDENTIFICATIONS else []
VERDICTS = f"{RESULTS}/verdicts.csv"
DIFFERENCES = f"{RESULTS}/differences.csv"
CLAIMS = f"{RESULTS}/claims.json"
PRIVACY = f"{RESULTS}/privacy.csv"
DEFENSE_TABLE = f"{RESULTS}/defenses.csv"
ATTACKS_TABLE = [f"{RESULTS}/attacks.csv"] if "attacks" in PARAMS.figures else []
JUDGED = [VERDICTS, DIFFERENCES, CLAIMS, PRIVACY, DEFENSE_TABLE, *ATTACKS_TABLE]


rule collect:
    input:
        scores=SCORES,
        attacks=ATTACK_RECORDS,
        accuracies=expand(ACCURACY, defense=PARAMS.defenses, seed=PARAMS.seeds),
        identifications=IDENTIFICATIONS,
    output:
        leakage=shown(TABLES["leakage"], "Leakage of every image"),
        parquet=TABLES["parquet"],
        accuracy=shown(TABLES["accuracy"], "Accuracy after every round"),
        metrics=shown(TABLES["metrics"], "Headline metrics"),
        headline=TABLES["headline"],
        identifiability=[shown(path, "Identifiability of every image") for path in IDENTIFIED],
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
        identifications=lambda w, input: flags("--identification", input.identifications),
        top=flags("--top", PARAMS.identifiability.top if IDENTIFIED else []),
        identifiability=flags("--identifiability-csv", IDENTIFIED),
        labels=labels(),
        code=code_version("leakpipe.cli.collect"),
    shell:
        """
        leakpipe collect \
            {params.scores} \
            {params.attacks} \
            {params.accuracies} \
            {params.identifications} {params.top} \
            --leakage-csv {output.leakage} \
            --leakage-parquet {output.parquet} \
            --accuracy-csv {output.accuracy} \
            {params.identifiability} \
            --metrics {output.metrics} \
            --headline {output.headline} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule judge:
    input:
        leakage=LEAKAGE,
        accuracy=TABLES["accuracy"],
        identifiability=IDENTIFIED,
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=expand(SPLIT, seed=PARAMS.seeds),
    output:
        verdicts=shown(VERDICTS, "Verdicts"),
        differences=shown(DIFFERENCES, "Paired differences"),
        claims=shown(CLAIMS, "The paper's claims, judged"),
        privacy=shown(PRIVACY, "Privacy budgets"),
        defenses=shown(DEFENSE_TABLE, "Defences: leakage against accuracy"),
        attacks=[shown(path, "Attacks compared") for path in ATTACKS_TABLE],
        record=f"{RECORD}/judge.json",
    log:
        f"{LOG}/judge.log",
    benchmark:
        f"{BENCHMARK}/judge.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        sections=literally(
            options(
                {
                    "federation": to_json(PARAMS.federation),
                    "defenses": to_json(PARAMS.defenses),
                    "privacy": to_json(PARAMS.privacy),
                    "claims": [to_json(PARAMS.claims)] if PARAMS.claims else [],
                    "published": to_json(
                        {name: PRESETS[each.preset].settings.iterations for name, each in PARAMS.attacks.items()}
                    ),
                }
            )
        ),
        names=options(
            {
                "attack": [*PARAMS.attacks],
                "client": ATTACKED,
                "high-risk": high_risk_client(PARAMS),
                "adaptive": adaptive_attacks(PARAMS),
            }
        ),
        splits=lambda w, input: flags("--split", input.splits),
        identifiability=flags("--identifiability", IDENTIFIED),
        attacks=flags("--attack-table", ATTACKS_TABLE),
        labels=labels(),
        code=code_version("leakpipe.cli.judge"),
    shell:
        """
        leakpipe judge \
            {params.sections:q} \
            {params.names:q} \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            {params.identifiability} \
            --images {input.images} \
            {params.splits} \
            --verdicts {output.verdicts} \
            --differences {output.differences} \
            --judged-claims {output.claims} \
            --guarantees {output.privacy} \
            --defense-table {output.defenses} \
            {params.attacks} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule scoring:
    input:
        list(TABLES.values()),


rule identification:
    input:
        IDENTIFIED,


rule judging:
    input:
        JUDGED,
