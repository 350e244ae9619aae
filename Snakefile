# What `snakemake` finds first in a clone; the workflow stands where Snakemake's catalog of workflows looks for it.


include: "workflow/Snakefile"


rule default:
    default_target: True
    input:
        rules.all.input,
    localrule: True
