# Inputs:  data/images and the seeds' splits, and the model to start from where that is trained on public images
# Outputs: per (defence, seed): accuracy, and of the captured rounds global models and attacked clients' updates

FEDERATION_RECORD = f"{RECORD}/federate/{{defense}}/seed{{seed}}.json"
EXACT_STATISTICS = any(granted_to(attack).batch_norm == "exact" for attack in PARAMS.attacks)


for DEFENSE in PARAMS.defenses:
    FEDERATION_TENSORS = [
        *in_captured_rounds(GLOBAL_MODEL),
        *expand(UPDATE, round=ROUNDS, client=CAPTURED[DEFENSE], allow_missing=True),
    ]
    FEDERATION_FILES = [*sidecars(FEDERATION_TENSORS), ACCURACY, FEDERATION_RECORD, *FEDERATION_TENSORS]
    for SEEDS in split_into_jobs(PARAMS.seeds, workload.seconds_to_train(PARAMS)):

        rule:
            name:
                f"federate_{DEFENSE}_seed{SEEDS[0]}"
            input:
                images=IMAGES,
                sidecar=sidecars(IMAGES),
                splits=fill_each(SPLIT, "seed", SEEDS),
                weights=literally([] if STARTS else WEIGHTS_FILE),
                initial=sidecars(fill_each(STARTS, "seed", SEEDS)),
            output:
                update(fill_each(fill(FEDERATION_FILES, defense=DEFENSE), "seed", SEEDS)),
            log:
                f"{LOG}/federate/{DEFENSE}/seed{SEEDS[0]}.log",
            benchmark:
                f"{BENCHMARK}/federate/{DEFENSE}/seed{SEEDS[0]}.tsv"
            priority: FIRST
            threads: 1
            resources:
                **granted("federate", mem_mb=memory_mb(FEDERATE_MB), device="cpu"),
            params:
                model=literally(to_json(PARAMS.model)),
                federation=literally(to_json(PARAMS.federation)),
                defense=literally(to_json(PARAMS.defenses[DEFENSE])),
                attacked=flags("--attacked", CAPTURED[DEFENSE]),
                exact_statistics="--exact-statistics" if EXACT_STATISTICS else "",
                files=literally(
                    options({"split": SPLIT, "initial": STARTS, "record": fill(FEDERATION_RECORD, defense=DEFENSE)})
                ),
                out_dir=literally(str(Path(fill(ACCURACY, defense=DEFENSE)).parent)),
                each=each("seed", SEEDS),
                labels=labels(defense=DEFENSE),
                code=code_version("leakpipe.cli.federate"),
            shell:
                """
                leakpipe federate \
                    --model {params.model:q} \
                    --federation {params.federation:q} \
                    --defense {params.defense:q} \
                    --images {input.images} \
                    {params.attacked} {params.exact_statistics} \
                    {params.files:q} \
                    --out-dir {params.out_dir:q} \
                    --threads {threads} \
                    --device {resources.device} \
                    {params.each} {params.labels:q} \
                    2>{log}
                """


rule federation:
    input:
        expand(ACCURACY, defense=PARAMS.defenses, seed=PARAMS.seeds),
        expand(GLOBAL_MODEL, defense=PARAMS.defenses, seed=PARAMS.seeds, round=ROUNDS),
        [
            expand(fill(UPDATE, defense=name), seed=PARAMS.seeds, round=ROUNDS, client=CAPTURED[name])
            for name in CAPTURED
        ],
