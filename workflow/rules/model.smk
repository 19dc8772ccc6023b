# The model, and what its weights matter.


rule train:
    input:
        inputs(STAGES["train"], config),
    output:
        STAGES["train"].outs,
    log:
        "data/{profile}/logs/train.log",
    benchmark:
        "data/{profile}/benchmarks/train.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=8000,
        runtime=720,
        gpu=1,
    params:
        values(STAGES["train"], config),
    shell:
        STAGES["train"].shell


rule fisher:
    input:
        inputs(STAGES["fisher"], config),
    output:
        STAGES["fisher"].outs,
    log:
        "data/{profile}/logs/fisher.log",
    benchmark:
        "data/{profile}/benchmarks/fisher.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=1,
    params:
        values(STAGES["fisher"], config),
    shell:
        STAGES["fisher"].shell


rule curvature:
    input:
        inputs(STAGES["curvature"], config),
    output:
        STAGES["curvature"].outs,
    log:
        "data/{profile}/logs/curvature.log",
    benchmark:
        "data/{profile}/benchmarks/curvature.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=16000,
        runtime=240,
        gpu=1,
    params:
        values(STAGES["curvature"], config),
    shell:
        STAGES["curvature"].shell
