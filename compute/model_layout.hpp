// Which bytes of a model's files hold what: for machines that fetch the part they need.
#pragma once

#include "compute/model_file.hpp"
#include "compute/shard.hpp"

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace hexgen::compute {

struct file_range {
  std::uint32_t file = 0; // index into model_layout::files
  std::uint64_t offset = 0, bytes = 0;
};

struct model_layout {
  struct entry {
    std::string name; // without folders
    std::uint64_t bytes = 0;
  };
  bool folder = false; // a Hugging Face folder; else files[0] is the model
  std::vector<entry> files;
  /// What open_model, open_tokenizer and model_digest read: all but the tensors' bytes past
  /// digest_sample_bytes.
  std::vector<file_range> skeleton;
};

/// Of `model`, which was opened from `path` (resolve_model's answer). Throws file_error.
[[nodiscard]] model_layout layout_of(const model_file& model, const std::filesystem::path& path);

/// The tensors that an executor of `part` reads, whole.
[[nodiscard]] std::vector<const tensor_view*> tensors_of(const model_file& model,
                                                         const shard& part);

} // namespace hexgen::compute
