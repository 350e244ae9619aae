# Inputs:  data/images and one seed's split, and the model to start from where that is trained on public images
# Outputs: per (defence, seed): accuracy, and of the captured rounds global models and attacked clients' updates

FEDERATION_RECORD = f"{RECORD}/federate/{{defense}}/seed{{seed}}.json"
EXACT_STATISTICS = any(granted_to(attack).batch_norm == "exact" for attack in PARAMS.attacks)


rule federate:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        split=SPLIT,
        weights=[] if STARTS else WEIGHTS_FILE,
        initial=STARTS,
        initial_sidecar=sidecars(STARTS),
    output:
        models=in_captured_rounds(GLOBAL_MODEL),
        model_sidecars=sidecars(in_captured_rounds(GLOBAL_MODEL)),
        updates=expand(UPDATE, round=ROUNDS, client=ATTACKED, allow_missing=True),
        update_sidecars=sidecars(expand(UPDATE, round=ROUNDS, client=ATTACKED, allow_missing=True)),
        accuracy=ACCURACY,
        record=FEDERATION_RECORD,
    log:
        f"{LOG}/federate/{{defense}}/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARK}/federate/{{defense}}/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(3500),
    params:
        model=to_json(PARAMS.model),
        federation=to_json(PARAMS.federation),
        defense=lambda w: to_json(PARAMS.defenses[w.defense]),
        attacked=flags("--attacked", ATTACKED),
        initial=lambda w, input: flags("--initial", input.initial),
        exact_statistics="--exact-statistics" if EXACT_STATISTICS else "",
        out_dir=lambda w, output: Path(output.accuracy).parent,
        labels=label_wildcards,
        code=code_version("leakpipe.cli.federate"),
    shell:
        """
        leakpipe federate \
            --model {params.model:q} \
            --federation {params.federation:q} \
            --defense {params.defense:q} \
            --images {input.images} \
            --split {input.split} \
            {params.attacked} {params.initial} {params.exact_statistics} \
            --out-dir {params.out_dir} \
            --threads {threads} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule federation:
    input:
        expand(ACCURACY, defense=PARAMS.defenses, seed=PARAMS.seeds),
        expand(GLOBAL_MODEL, defense=PARAMS.defenses, seed=PARAMS.seeds, round=ROUNDS),
        expand(UPDATE, defense=PARAMS.defenses, seed=PARAMS.seeds, round=ROUNDS, client=ATTACKED),
