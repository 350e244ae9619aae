# Inputs:  the tables, the verdicts on the claims, the figures and their captions, run records of all federations and
#          attacks, and what their pictures are cut from: images, splits, reconstructions
# Outputs: report.html

REPORT = f"{RESULTS}/report.html"

ATTACKED_PICTURES = [made for cell in CELLS for made in expand(RECONSTRUCTION, round=ROUNDS, **vars(cell))]


rule report:
    input:
        leakage=TABLES["leakage"],
        accuracy=TABLES["accuracy"],
        metrics=TABLES["metrics"],
        verdicts=VERDICTS,
        claims=CLAIMS,
        defense_table=DEFENSE_TABLE,
        figures=expand(f"{FIGURE}/{{name}}.svg", name=FIGURE_NAMES),
        captions=expand(f"{FIGURE}/{{name}}.txt", name=FIGURE_NAMES),
        federations=expand(FEDERATION_RECORD, defense=PARAMS.defenses, seed=PARAMS.seeds),
        attacks=ATTACK_RECORDS,
        images=IMAGES,
        splits=expand(SPLIT, seed=PARAMS.seeds),
        sidecars=sidecars([IMAGES, *ATTACKED_PICTURES]),
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
        mem_mb=memory_mb(1000),
    params:
        params=literally(WHOLE_PARAMS),
        values=VALUES_HASH,
        figures=lambda w, input: flags("--figure", map("=".join, zip(FIGURE_NAMES, input.figures))),
        captions=lambda w, input: flags("--caption", map("=".join, zip(FIGURE_NAMES, input.captions))),
        splits=lambda w, input: flags("--split", input.splits),
        # Patterns, not paths: a command that names thousands of files is longer than Linux takes.
        patterns=lambda w: options(
            {
                "federation-record": FEDERATION_RECORD,
                "attack-record": ATTACK_RECORD,
                "reconstruction": RECONSTRUCTION,
            }
        ),
        config_files=literally(flags("--config-file", PARAMETER_FILES)),
        labels=labels(),
        code=code_version("leakpipe.cli.report"),
    shell:
        """
        leakpipe report \
            --params {params.params:q} \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            --metrics {input.metrics} \
            --verdicts {input.verdicts} \
            --claims {input.claims} \
            --defense-table {input.defense_table} \
            {params.figures} \
            {params.captions} \
            --images {input.images} \
            {params.splits} \
            {params.patterns:q} \
            {params.config_files:q} \
            --out {output.page} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """
