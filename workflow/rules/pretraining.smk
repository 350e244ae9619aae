# Inputs:  data/images and one seed's split
# Outputs: per seed: the model that the federation starts from; only made where model.weights is `public`

PRETRAINED = f"{RESULTS}/federation/pretrained/seed{{seed}}.safetensors"
PRETRAINING_RECORD = f"{RECORD}/federate/pretrained-seed{{seed}}.json"
STARTS = [PRETRAINED] if PARAMS.model.weights == "public" else []
# A file of weights that the parameters name: what is made with it is made again when it changes.
WEIGHTS_FILE = [path for path in [weights_file(PARAMS.model)] if path]


rule pretrain:
    input:
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        split=SPLIT,
        weights=literally(WEIGHTS_FILE),
    output:
        model=PRETRAINED,
        sidecar=sidecars(PRETRAINED),
        record=PRETRAINING_RECORD,
    log:
        f"{LOG}/pretrain/seed{{seed}}.log",
    benchmark:
        f"{BENCHMARK}/pretrain/seed{{seed}}.tsv"
    threads: 1
    resources:
        mem_mb=memory_mb(3500),
        device="cpu",
    params:
        model=literally(to_json(PARAMS.model)),
        labels=label_wildcards,
        code=code_version("leakpipe.cli.pretrain"),
    shell:
        """
        leakpipe pretrain \
            --model {params.model:q} \
            --images {input.images} \
            --split {input.split} \
            --out {output.model} \
            --threads {threads} \
            --device {resources.device} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


PRETRAINING_RECORDS = expand(PRETRAINING_RECORD, seed=PARAMS.seeds) if STARTS else []
