# Inputs:  captured global models and updates of one client, the seed's prior images
# Outputs: reconstructions: one job per (defence, seed, client, attack), over all captured rounds

ATTACK_RECORD = f"{RECORD}/invert/{{defense}}/seed{{seed}}/{{client}}/{{attack}}.json"
ATTACK_RECORDS = [ATTACK_RECORD.format(**vars(cell)) for cell in CELLS]


rule invert:
    input:
        models=in_captured_rounds(GLOBAL_MODEL),
        model_sidecars=sidecars(in_captured_rounds(GLOBAL_MODEL)),
        updates=in_captured_rounds(UPDATE),
        update_sidecars=sidecars(in_captured_rounds(UPDATE)),
        prior=PRIOR,
        prior_sidecar=sidecars(PRIOR),
    output:
        images=in_captured_rounds(RECONSTRUCTION),
        sidecars=sidecars(in_captured_rounds(RECONSTRUCTION)),
        record=ATTACK_RECORD,
    log:
        f"{LOG}/invert/{{defense}}/seed{{seed}}/{{client}}/{{attack}}.log",
    benchmark:
        f"{BENCHMARK}/invert/{{defense}}/seed{{seed}}/{{client}}/{{attack}}.tsv"
    threads: 1
    resources:
        mem_mb=2000,
    params:
        attack=lambda w: to_json(resolve_settings(PARAMS.attacks[w.attack], w.client)),
        threat_model=lambda w: to_json(granted_to(w.attack)),
        defense=lambda w: (
            flags("--defense", [to_json(PARAMS.defenses[w.defense])])
            if granted_to(w.attack).defense == "known"
            else []
        ),
        checkpoints=f"{CHECKPOINTS}/{{defense}}/seed{{seed}}/{{client}}/{{attack}}",
        models=lambda w, input: flags("--global-model", input.models),
        updates=lambda w, input: flags("--update", input.updates),
        images=lambda w, output: flags("--out", output.images),
        labels=label_wildcards,
        code=code_version("leakpipe.cli.invert"),
    shell:
        """
        leakpipe invert \
            --attack {params.attack:q} \
            --name {wildcards.attack} \
            {params.models} \
            {params.updates} \
            {params.images} \
            --prior {input.prior} \
            --threat-model {params.threat_model:q} {params.defense:q} \
            --checkpoints {params.checkpoints} \
            --threads {threads} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule inversion:
    input:
        in_cells(RECONSTRUCTION, CELLS),
