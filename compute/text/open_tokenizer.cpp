#include "compute/files/gguf.hpp"
#include "compute/model_file.hpp"
#include "compute/shape_model.hpp"
#include "compute/text/tokenizer_readers.hpp"
#include "compute/tokenizer.hpp"

#include <fstream>
#include <system_error>

namespace hexgen::compute {

namespace {

constexpr std::uintmax_t max_file_bytes = 256U << 20U;

// The whole file, or nothing when it does not exist.
std::string read_text(const std::filesystem::path& path) {
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error))
    return {};
  const auto size = std::filesystem::file_size(path, error);
  if (error || size > max_file_bytes)
    throw file_error(path.string() + ": size: is over 256 MiB or cannot be read");
  std::string text(static_cast<std::size_t>(size), '\0');
  std::ifstream in(path, std::ios::binary);
  in.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (in.gcount() != static_cast<std::streamsize>(text.size()))
    throw file_error(path.string() + ": cannot be read");
  return text;
}

} // namespace

std::shared_ptr<const tokenizer> open_tokenizer(const std::filesystem::path& path) {
  std::error_code error;
  if (path.extension() == ".yaml")
    return open_shape_tokenizer(path);
  if (!std::filesystem::is_directory(path, error))
    return tokenizer_of_gguf(*gguf_file::open(path));
  const tokenizer_settings settings{read_text(path / "tokenizer_config.json"),
                                    read_text(path / "generation_config.json"),
                                    read_text(path / "chat_template.jinja")};
  const auto json_path = path / "tokenizer.json";
  if (const auto text = read_text(json_path); !text.empty())
    return tokenizer_of_json(json_path.string(), text, settings);
  const auto model_path = path / "tokenizer.model";
  if (const auto bytes = read_text(model_path); !bytes.empty())
    return tokenizer_of_model(model_path.string(), bytes, settings);
  throw file_error(path.string() + ": tokenizer.json: neither it nor tokenizer.model is there");
}

} // namespace hexgen::compute
