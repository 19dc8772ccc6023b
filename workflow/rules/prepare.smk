# Data preparation: the only rules that may reach for the network.


rule dataset:
    input:
        inputs(STAGES["dataset"], config),
    output:
        STAGES["dataset"].outs,
    log:
        "data/{profile}/logs/dataset.log",
    benchmark:
        "data/{profile}/benchmarks/dataset.tsv"
    localrule: True
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=2000,
        runtime=30,
    params:
        values(STAGES["dataset"], config),
    shell:
        STAGES["dataset"].shell


rule features:
    input:
        inputs(STAGES["features"], config),
    output:
        STAGES["features"].outs,
    log:
        "data/{profile}/logs/features.log",
    benchmark:
        "data/{profile}/benchmarks/features.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=4000,
        runtime=120,
        gpu=1,
    params:
        values(STAGES["features"], config),
    shell:
        STAGES["features"].shell


rule reference:
    input:
        inputs(STAGES["reference"], config),
    output:
        STAGES["reference"].outs,
    log:
        "data/{profile}/logs/reference.log",
    benchmark:
        "data/{profile}/benchmarks/reference.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=4000,
        runtime=60,
        gpu=1,
    params:
        values(STAGES["reference"], config),
    shell:
        STAGES["reference"].shell
