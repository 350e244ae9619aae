# Inputs:  captured global models and updates of one client, the seeds' prior images
# Outputs: reconstructions over all captured rounds; a job per (defence, attack, client) and ten seeds at most

ATTACK_RECORD = f"{RECORD}/invert/{{defense}}/seed{{seed}}/{{client}}/{{attack}}.json"
ATTACK_RECORDS = [ATTACK_RECORD.format(**vars(cell)) for cell in CELLS]
ATTACK_INPUTS = sidecars([*in_captured_rounds(GLOBAL_MODEL), *in_captured_rounds(UPDATE), PRIOR])
ATTACK_OUTPUTS = in_captured_rounds(RECONSTRUCTION)
ATTACK_FILES = [ATTACK_RECORD, *sidecars(ATTACK_OUTPUTS), *ATTACK_OUTPUTS]

for (DEFENSE, CLIENT, NAME), CHOSEN in group_by(CELLS, "defense", "client", "attack").items():
    SECONDS = workload.seconds_to_attack(PARAMS, NAME, CLIENT)
    for SEEDS in split_into_jobs([cell.seed for cell in CHOSEN], SECONDS):
        OF = {"defense": DEFENSE, "client": CLIENT, "attack": NAME}
        JOB = f"{DEFENSE}_{NAME}_{CLIENT}_seed{SEEDS[0]}"

        rule:
            name:
                f"invert_{JOB}"
            input:
                fill_each(fill(ATTACK_INPUTS, **OF), "seed", SEEDS),
            output:
                update(fill_each(fill(ATTACK_FILES, **OF), "seed", SEEDS)),
            log:
                f"{LOG}/invert/{JOB}.log",
            benchmark:
                f"{BENCHMARK}/invert/{JOB}.tsv"
            priority: min(FIRST - 1, round(len(SEEDS) * SECONDS))  # the longest first, so that all cores end together
            threads: 1
            resources:
                **granted("invert", mem_mb=INVERT_MB, device="cpu"),
            params:
                attack=literally(to_json(resolve_settings(PARAMS.attacks[NAME], CLIENT))),
                name=NAME,
                threat_model=literally(to_json(granted_to(NAME))),
                defense=literally(
                    flags("--defense", [to_json(PARAMS.defenses[DEFENSE])])
                    if granted_to(NAME).defense == "known"
                    else []
                ),
                files=literally(
                    options(
                        {
                            "global-model": fill(in_captured_rounds(GLOBAL_MODEL), **OF),
                            "update": fill(in_captured_rounds(UPDATE), **OF),
                            "out": fill(ATTACK_OUTPUTS, **OF),
                            "prior": PRIOR,
                            "checkpoints": fill(f"{CHECKPOINTS}/{{defense}}/seed{{seed}}/{{client}}/{{attack}}", **OF),
                            "record": fill(ATTACK_RECORD, **OF),
                        }
                    )
                ),
                each=each("seed", SEEDS),
                labels=labels(defense=DEFENSE, client=CLIENT),
                code=code_version("leakpipe.cli.invert"),
            shell:
                """
                leakpipe invert \
                    --attack {params.attack:q} \
                    --name {params.name} \
                    --threat-model {params.threat_model:q} {params.defense:q} \
                    {params.files:q} \
                    --threads {threads} \
                    --device {resources.device} \
                    {params.each} {params.labels:q} \
                    2>{log}
                """


rule inversion:
    input:
        in_cells(RECONSTRUCTION, CELLS),
