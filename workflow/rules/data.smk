# Inputs:  nothing but the registered data set, and the lists of data.datalists
# Outputs: data/images, and per seed data/seed<n>/split and prior

SPLIT_RECORD = f"{RECORD}/split_data/seed{{seed}}.json"


rule prepare_data:
    input:
        datalists=DATALISTS,
    output:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        record=f"{RECORD}/prepare_data.json",
    log:
        f"{LOG}/prepare_data.log",
    benchmark:
        f"{BENCHMARK}/prepare_data.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        images=json.dumps(PARAMS.data.model_dump(mode="json", include=set(ImagesParams.model_fields))),
        labels=labels(),
        code=code_version("leakpipe.cli.prepare_data"),
    shell:
        """
        leakpipe prepare-data \
            --images {params.images:q} \
            --out {output.images} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule split_data:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        datalists=DATALISTS,
    output:
        split=SPLIT,
        prior=PRIOR,
        sidecar=sidecars(PRIOR),
        record=SPLIT_RECORD,
    log:
        f"{LOG}/split_data/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARK}/split_data/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(1000),
    params:
        data=to_json(PARAMS.data),
        clients=to_json(PARAMS.federation.clients),
        labels=label_wildcards,
        code=code_version("leakpipe.cli.split_data"),
    shell:
        """
        leakpipe split-data \
            --data-params {params.data:q} \
            --clients {params.clients:q} \
            --images {input.images} \
            --seed {wildcards.seed} \
            --split {output.split} \
            --prior {output.prior} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


DATA = [IMAGES, expand(SPLIT, seed=PARAMS.seeds), expand(PRIOR, seed=PARAMS.seeds)]


rule data:
    input:
        DATA,
