# Inputs:  leakage.csv, accuracy.csv; for the reconstructions also the images of the last captured round
# Outputs: figures/<name>.svg, .png and .txt (the caption), <name> being one of the parameters' `figures`;
#          attacks.csv, the means behind the figure of that name

from leakpipe.figures.selection import name_defenses

# The first attack is what the experiment is about, the others are what it is compared with; the first
# defence is the one with the least noise.
ATTACK, *OTHER_ATTACKS = PARAMS.attacks
UNDEFENDED = next(iter(name_defenses(PARAMS.model_dump()["defenses"])))
FIGURE = f"{RESULTS}/figures"
FIGURE_NAMES = PARAMS.figures
FIGURES = expand(f"{FIGURE}/{{name}}.{{kind}}", name=FIGURE_NAMES, kind=["svg", "png"])
LAST_RECONSTRUCTIONS = [RECONSTRUCTION.format(round=max(ROUNDS), **vars(cell)) for cell in cells(attack=ATTACK)]


rule plot_reconstructions:
    input:
        leakage=LEAKAGE,
        images=IMAGES,
        sidecar=sidecars(IMAGES),
        splits=expand(SPLIT, seed=PARAMS.seeds),
        reconstructions=LAST_RECONSTRUCTIONS,
        reconstruction_sidecars=sidecars(LAST_RECONSTRUCTIONS),
    output:
        svg=report(
            f"{FIGURE}/reconstructions.svg",
            caption="../report/reconstructions.rst",
            category="Figures",
            labels={"figure": "Reconstructions", "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/reconstructions.png",
            caption="../report/reconstructions.rst",
            category="Figures",
            labels={"figure": "Reconstructions", "format": "PNG"},
        ),
        caption=f"{FIGURE}/reconstructions.txt",
        record=f"{RECORD}/plot_reconstructions.json",
    log:
        f"{LOG}/plot_reconstructions.log",
    benchmark:
        f"{BENCHMARK}/plot_reconstructions.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        clients=to_json(PARAMS.federation.clients),
        defenses=to_json(PARAMS.defenses),
        splits=lambda w, input: flags("--split", input.splits),
        reconstructions=lambda w, input: flags("--reconstruction", input.reconstructions),
        attack=ATTACK,
        round=max(ROUNDS),
        labels=labels(),
        code=code_version("leakpipe.cli.plot_reconstructions"),
    shell:
        """
        leakpipe plot reconstructions \
            --clients {params.clients:q} \
            --defenses {params.defenses:q} \
            --leakage {input.leakage} \
            --images {input.images} \
            {params.splits} \
            {params.reconstructions} \
            --attack {params.attack} \
            --round {params.round} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule plot_rounds:
    input:
        leakage=LEAKAGE,
    output:
        svg=report(
            f"{FIGURE}/rounds.svg",
            caption="../report/rounds.rst",
            category="Figures",
            labels={"figure": "Leakage by round", "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/rounds.png",
            caption="../report/rounds.rst",
            category="Figures",
            labels={"figure": "Leakage by round", "format": "PNG"},
        ),
        caption=f"{FIGURE}/rounds.txt",
        record=f"{RECORD}/plot_rounds.json",
    log:
        f"{LOG}/plot_rounds.log",
    benchmark:
        f"{BENCHMARK}/plot_rounds.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        clients=to_json(PARAMS.federation.clients),
        attack=ATTACK,
        compare=flags("--compare", OTHER_ATTACKS),
        defense=UNDEFENDED,
        labels=labels(),
        code=code_version("leakpipe.cli.plot_rounds"),
    shell:
        """
        leakpipe plot rounds \
            --clients {params.clients:q} \
            --leakage {input.leakage} \
            --attack {params.attack} \
            {params.compare} \
            --defense {params.defense} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule plot_noise:
    input:
        leakage=LEAKAGE,
        accuracy=TABLES["accuracy"],
    output:
        svg=report(
            f"{FIGURE}/noise.svg",
            caption="../report/noise.rst",
            category="Figures",
            labels={"figure": "Leakage and accuracy by noise", "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/noise.png",
            caption="../report/noise.rst",
            category="Figures",
            labels={"figure": "Leakage and accuracy by noise", "format": "PNG"},
        ),
        caption=f"{FIGURE}/noise.txt",
        record=f"{RECORD}/plot_noise.json",
    log:
        f"{LOG}/plot_noise.log",
    benchmark:
        f"{BENCHMARK}/plot_noise.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        clients=to_json(PARAMS.federation.clients),
        defenses=to_json(PARAMS.defenses),
        attack=ATTACK,
        labels=labels(),
        code=code_version("leakpipe.cli.plot_noise"),
    shell:
        """
        leakpipe plot noise \
            --clients {params.clients:q} \
            --defenses {params.defenses:q} \
            --leakage {input.leakage} \
            --accuracy {input.accuracy} \
            --attack {params.attack} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule plot_attacks:
    input:
        leakage=LEAKAGE,
    output:
        svg=report(
            f"{FIGURE}/attacks.svg",
            caption="../report/attacks.rst",
            category="Figures",
            labels={"figure": "Attacks by wall time", "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/attacks.png",
            caption="../report/attacks.rst",
            category="Figures",
            labels={"figure": "Attacks by wall time", "format": "PNG"},
        ),
        caption=f"{FIGURE}/attacks.txt",
        table=f"{RESULTS}/attacks.csv",
        record=f"{RECORD}/plot_attacks.json",
    log:
        f"{LOG}/plot_attacks.log",
    benchmark:
        f"{BENCHMARK}/plot_attacks.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        clients=to_json(PARAMS.federation.clients),
        attacks=flags("--attack", PARAMS.attacks),
        defense=UNDEFENDED,
        labels=labels(),
        code=code_version("leakpipe.cli.plot_attacks"),
    shell:
        """
        leakpipe plot attacks \
            --clients {params.clients:q} \
            --leakage {input.leakage} \
            {params.attacks} \
            --defense {params.defense} \
            --table {output.table} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule plot_identifiability:
    input:
        table=IDENTIFIABILITY,
    output:
        svg=report(
            f"{FIGURE}/identifiability.svg",
            caption="../report/identifiability.rst",
            category="Figures",
            labels={"figure": "Images recognised", "format": "SVG"},
        ),
        png=report(
            f"{FIGURE}/identifiability.png",
            caption="../report/identifiability.rst",
            category="Figures",
            labels={"figure": "Images recognised", "format": "PNG"},
        ),
        caption=f"{FIGURE}/identifiability.txt",
        record=f"{RECORD}/plot_identifiability.json",
    log:
        f"{LOG}/plot_identifiability.log",
    benchmark:
        f"{BENCHMARK}/plot_identifiability.tsv"
    threads: 1
    resources:
        mem_mb=1000,
    params:
        identifiability=to_json(PARAMS.identifiability),
        clients=to_json(PARAMS.federation.clients),
        attack=ATTACK,
        defense=UNDEFENDED,
        labels=labels(),
        code=code_version("leakpipe.cli.plot_identifiability"),
    shell:
        """
        leakpipe plot identifiability \
            --identifiability {params.identifiability:q} \
            --clients {params.clients:q} \
            --table {input.table} \
            --attack {params.attack} \
            --defense {params.defense} \
            --svg {output.svg} \
            --png {output.png} \
            --caption {output.caption} \
            --record {output.record} {params.labels:q} \
            2>{log}
        """


rule figures:
    input:
        FIGURES,
