// Whether two nodes' files hold the same model.
#pragma once

#include "compute/blake2b.hpp"
#include "compute/model_file.hpp"

namespace hexgen::compute {

/// Of each tensor, for model_digest.
inline constexpr std::size_t digest_sample_bytes = 256;

/// Of the configuration, the tensor table (names, types, shapes) and the first bytes of every
/// tensor: cheap (one page of each tensor is read), and different for two trainings of one
/// architecture. The model's name and the tensors' order do not matter.
/// Equal digests say "very likely the same file"; what is loaded is decided by tensor_digest.
[[nodiscard]] digest model_digest(const model_file& model);

/// Of one tensor: type, shape and all bytes, not the name. Reads the whole tensor.
[[nodiscard]] digest tensor_digest(const tensor_view& tensor);

} // namespace hexgen::compute
