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
        images=literally(json.dumps(PARAMS.data.model_dump(mode="json", include=set(ImagesParams.model_fields)))),
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


SPLIT_FILES = [SPLIT, PRIOR, *sidecars(PRIOR), SPLIT_RECORD]

for SEEDS in split_into_jobs(PARAMS.seeds, seconds=1):

    rule:
        name:
            f"split_data_seed{SEEDS[0]}"
        input:
            images=IMAGES,
            sidecar=sidecars(IMAGES),
            datalists=DATALISTS,
        output:
            update(fill_each(SPLIT_FILES, "seed", SEEDS)),
        log:
            f"{LOG}/split_data/seed{SEEDS[0]}.log",
        benchmark:
            f"{BENCHMARK}/split_data/seed{SEEDS[0]}.tsv"
        threads: 1
        resources:
            **granted("split_data", mem_mb=memory_mb(1000)),
        params:
            data=literally(to_json(PARAMS.data)),
            clients=literally(to_json(PARAMS.federation.clients)),
            files=literally(options({"split": SPLIT, "prior": PRIOR, "record": SPLIT_RECORD})),
            each=each("seed", SEEDS),
            labels=labels(),
            code=code_version("leakpipe.cli.split_data"),
        shell:
            """
            leakpipe split-data \
                --data-params {params.data:q} \
                --clients {params.clients:q} \
                --images {input.images} \
                {params.files:q} {params.each} {params.labels:q} \
                2>{log}
            """


DATA = [IMAGES, expand(SPLIT, seed=PARAMS.seeds), expand(PRIOR, seed=PARAMS.seeds)]


rule data:
    input:
        DATA,
