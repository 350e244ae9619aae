# Inputs:  params.yaml, or --configfile params.yaml experiments/<overlay>.yaml; results lie in the current folder,
#          which may be another one than this file's (`snakemake -s PROJECT/Snakefile`)

from pathlib import Path

from snakemake.utils import min_version

min_version("9.10")


# One's own, in the folder that is worked in; else the one beside this file, which several people may share.
configfile: "params.yaml" if Path("params.yaml").exists() else f"{workflow.basedir}/params.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/data.smk"
include: "workflow/rules/pretraining.smk"
include: "workflow/rules/federation.smk"
include: "workflow/rules/inversion.smk"
include: "workflow/rules/scoring.smk"
include: "workflow/rules/identification.smk"
include: "workflow/rules/tables.smk"
include: "workflow/rules/figures.smk"
include: "workflow/rules/reporting.smk"
include: "workflow/rules/provenance.smk"
include: "workflow/rules/tracking.smk"


rule all:
    default_target: True
    input:
        PRODUCTS,
        TRACKED,
