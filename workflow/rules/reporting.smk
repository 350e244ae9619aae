# Inputs:  the tables, the verdicts on the claims, the figures and their captions, run records of all federations and attacks
# Outputs: report.html

REPORT = f"{RESULTS}/report.html"
CONFIG_FILES = [os.path.relpath(path) for path in workflow.configfiles]


rule report:
    input:
        leakage=TABLES["leakage"],
        accuracy=TABLES["accuracy"],
        metrics=TABLES["metrics"],
        claims=CLAIMS,
        defense_table=DEFENSE_TABLE,
        figures=expand(f"{FIGURE}/{{name}}.svg", name=FIGURE_NAMES),
        captions=expand(f"{FIGURE}/{{name}}.txt", name=FIGURE_NAMES),
        federations=expand(FEDERATION_RECORD, defense=PARAMS.defenses, seed=PARAMS.seeds),
        attacks=ATTACK_RECORDS,
    output:
        page=report(
            REPORT,
            caption="../report/report.rst",
            category="Report",
            labels={"page": "What leaked"},
        ),
        record=f"{RECORD}/report.json",
    log:
        f"{LOG}/report.log",
    benchmark:
        f"{BENCHMARK}/report.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        params=PARAMS.model_dump_json(exclude_unset=True),
        figures=lambda w, input: flags("--figure", map("=".join, zip(FIGURE_NAMES, input.figures))),
        captions=lambda w, input: flags("--caption", map("=".join, zip(FIGURE_NAMES, input.captions))),
        records=lambda w, input: flags("--record-file", [*input.federations, *input.attacks]),
        config_files=flags("--config-file", CONFIG_FILES),
        labels=labels(),
        code=code_version("leakpipe.cli.report"),
    shell:
        """
        leakpipe report \
            --params {params.params:q} \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            --metrics {input.metrics} \
            --claims {input.claims} \
            --defense-table {input.defense_table} \
            {params.figures} \
            {params.captions} \
            {params.records} \
            {params.config_files:q} \
            --out {output.page} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule evaluation:
    input:
        list(TABLES.values()),
        DIFFERENCES,
        CLAIMS,
        PRIVACY,
        DEFENSE_TABLE,
        ATTACKS_TABLE,
        IDENTIFIED,
        FIGURES,
        REPORT,
