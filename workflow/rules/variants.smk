# One job per variant and stage.


rule quantize:
    input:
        inputs(STAGES["quantize"], config),
    output:
        STAGES["quantize"].outs,
    log:
        "data/{profile}/logs/quantize/{variant}.log",
    benchmark:
        "data/{profile}/benchmarks/quantize/{variant}.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=4000,
        runtime=60,
        gpu=1,
    params:
        values(STAGES["quantize"], config),
    shell:
        STAGES["quantize"].shell


rule sample:
    input:
        inputs(STAGES["sample"], config),
    output:
        STAGES["sample"].outs,
    log:
        "data/{profile}/logs/sample/{variant}.log",
    benchmark:
        "data/{profile}/benchmarks/sample/{variant}.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1,
    params:
        values(STAGES["sample"], config),
    shell:
        STAGES["sample"].shell


rule evaluate:
    input:
        inputs(STAGES["evaluate"], config),
    output:
        STAGES["evaluate"].outs,
    log:
        "data/{profile}/logs/evaluate/{variant}.log",
    benchmark:
        "data/{profile}/benchmarks/evaluate/{variant}.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=8000,
        runtime=120,
        gpu=1,
    params:
        values(STAGES["evaluate"], config),
    shell:
        STAGES["evaluate"].shell


# One job per profile: all budgets and controls.


rule controls:
    input:
        inputs(STAGES["controls"], config),
    output:
        STAGES["controls"].outs,
    log:
        "data/{profile}/logs/controls.log",
    benchmark:
        "data/{profile}/benchmarks/controls.tsv"
    conda:
        "../envs/laqfi.yaml"
    threads: threads(config)
    resources:
        mem_mb=8000,
        runtime=240,
        gpu=1,
    params:
        values(STAGES["controls"], config),
    shell:
        STAGES["controls"].shell
