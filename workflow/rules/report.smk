# What a reader looks at.


rule report:
    input:
        inputs(STAGES["report"], config),
    output:
        STAGES["report"].outs,
    log:
        "data/{profile}/logs/report.log",
    benchmark:
        "data/{profile}/benchmarks/report.tsv"
    localrule: True
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=4000,
        runtime=30,
    params:
        values(STAGES["report"], config),
    shell:
        STAGES["report"].shell
