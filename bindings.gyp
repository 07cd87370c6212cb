# The CPU addon for node-gyp, from the same source list as CMakeLists.txt, which is the real build. node-gyp insists on
# the name binding.gyp; that file includes this one.
{
  "variables": {
    "kernel_sources": ["<!@(node -p \"require('./native/sources.json').kernels.join(' ')\")"]
  },
  "target_defaults": {
    "include_dirs": ["native"],
    "cflags!": ["-fno-exceptions"],
    "cflags_cc!": ["-fno-exceptions", "-fno-rtti", "-std=gnu++17", "-std=gnu++20"],
    "cflags_cc": ["-std=c++20", "-O3", "-fexceptions", "-ffp-contract=off", "-fvisibility=hidden", "-fvisibility-inlines-hidden", "-Wno-psabi"]
  },
  "targets": [
    {
      "target_name": "kernels_baseline",
      "type": "static_library",
      "sources": ["<@(kernel_sources)"],
      "defines": ["SIGLIP2_ISA=baseline", "SIGLIP2_ISA_baseline=1"]
    },
    {
      "target_name": "kernels_wide16",
      "type": "static_library",
      "sources": ["<@(kernel_sources)"],
      "defines": ["SIGLIP2_ISA=wide16", "SIGLIP2_ISA_wide16=1"]
    },
    {
      "target_name": "siglip2",
      "sources": ["<!@(node -p \"require('./native/sources.json').common.join(' ')\")"],
      "dependencies": [
        "kernels_baseline",
        "kernels_wide16",
        "<!(node -p \"require('node-addon-api').targets\"):node_addon_api_except"
      ],
      "defines": ["NAPI_VERSION=8", "NODE_API_SWALLOW_UNTHROWABLE_EXCEPTIONS", "SIGLIP2_HAVE_baseline=1", "SIGLIP2_HAVE_wide16=1"],
      "conditions": [
        ["OS=='linux'", { "ldflags": ["-Wl,--exclude-libs,ALL", "-Wl,-z,nodelete"] }],
        ["target_arch=='x64'", {
          "dependencies": ["kernels_avx2", "kernels_avx512"],
          "defines": ["SIGLIP2_HAVE_avx2=1", "SIGLIP2_HAVE_avx512=1"]
        }]
      ]
    }
  ],
  "conditions": [
    ["target_arch=='x64'", {
      "targets": [
        {
          "target_name": "kernels_avx2",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["SIGLIP2_ISA=avx2", "SIGLIP2_ISA_avx2=1"],
          "cflags_cc": ["-mavx2", "-mfma", "-mf16c"]
        },
        {
          "target_name": "kernels_avx512",
          "type": "static_library",
          "sources": ["<@(kernel_sources)"],
          "defines": ["SIGLIP2_ISA=avx512", "SIGLIP2_ISA_avx512=1"],
          "cflags_cc": ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c", "-mprefer-vector-width=512", "-Wno-uninitialized", "-Wno-maybe-uninitialized"]
        }
      ]
    }]
  ]
}
