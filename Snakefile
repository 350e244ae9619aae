# Inputs:  params.yaml, or --configfile params.yaml experiments/<overlay>.yaml

from snakemake.utils import min_version, validate

min_version("9.10")


configfile: "params.yaml"


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
