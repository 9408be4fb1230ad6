#include "compute/model_layout.hpp"

#include "compute/files/mapped_file.hpp"
#include "compute/model_digest.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace hexgen::compute {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t most_files = 4096;

bool belongs_to_model(const fs::path& file) {
  const auto kind = file.extension();
  return kind == ".json" || kind == ".safetensors" || kind == ".model" || kind == ".jinja" ||
         kind == ".txt";
}

std::vector<fs::path> files_of(const fs::path& path, bool folder) {
  if (!folder)
    return {path};
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(path))
    if (entry.is_regular_file() && belongs_to_model(entry.path()))
      files.push_back(entry.path());
  if (files.size() > most_files)
    throw file_error(path.string() + ": " + std::to_string(files.size()) + " files, at most " +
                     std::to_string(most_files));
  std::sort(files.begin(), files.end());
  return files;
}

/// Runs of bytes that are only read with their tensor: offset and length.
using runs = std::vector<std::pair<std::uint64_t, std::uint64_t>>;

void add_between(std::uint32_t file, std::uint64_t bytes, runs tensors, model_layout& out) {
  std::sort(tensors.begin(), tensors.end());
  std::uint64_t at = 0;
  for (const auto& [offset, length] : tensors) {
    if (offset > at)
      out.skeleton.push_back({file, at, offset - at});
    at = std::max(at, offset + length);
  }
  if (bytes > at)
    out.skeleton.push_back({file, at, bytes - at});
}

/// -1: of no layer.
int layer_of(std::string_view tensor) {
  constexpr std::string_view prefix = "blk.";
  if (!tensor.starts_with(prefix))
    return -1;
  int layer = 0;
  for (const char c : tensor.substr(prefix.size())) {
    if (c < '0' || c > '9')
      break;
    layer = layer * 10 + (c - '0');
  }
  return layer;
}

} // namespace

model_layout layout_of(const model_file& model, const fs::path& path) {
  model_layout out;
  out.folder = fs::is_directory(path);
  const auto files = files_of(path, out.folder);
  std::map<fs::path, runs> tensors;
  for (const auto& t : model.tensors()) {
    const auto past_sample = t.bytes.subspan(std::min(digest_sample_bytes, t.bytes.size()));
    if (past_sample.empty())
      continue;
    if (const auto place = place_in_file(past_sample))
      tensors[place->path].emplace_back(place->offset, past_sample.size());
  }
  for (std::uint32_t i = 0; i < files.size(); ++i) {
    const std::uint64_t bytes = fs::file_size(files[i]);
    out.files.push_back({files[i].filename().string(), bytes});
    add_between(i, bytes, std::move(tensors[files[i]]), out);
  }
  return out;
}

std::vector<const tensor_view*> tensors_of(const model_file& model, const shard& part) {
  std::vector<const tensor_view*> needed;
  const bool own_head = model.find("output.weight") != nullptr;
  for (const auto& t : model.tensors()) {
    const int layer = layer_of(t.name);
    bool reads = layer >= part.first_layer && layer < part.first_layer + part.layers;
    if (t.name == "token_embd.weight")
      reads = part.first || (part.last && !own_head);
    else if (layer < 0)
      reads = part.last; // the final norm and the head
    if (reads)
      needed.push_back(&t);
  }
  return needed;
}

} // namespace hexgen::compute
