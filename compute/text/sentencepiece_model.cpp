// SentencePiece's ModelProto, decoded by hand: pieces (field 1: piece 1, score 2, type 3), trainer
// spec (2: model_type 3, unk_id 40, bos_id 41, eos_id 42) and normalizer spec (3: charsmap 2,
// add_dummy_prefix 3, remove_extra_whitespaces 4), as in sentencepiece_model.proto.
#include "compute/text/sentencepiece_tokenizer.hpp"
#include "compute/text/tokenizer_readers.hpp"
#include "compute/text/tokenizer_settings.hpp"
#include "compute/text/vocabulary.hpp"

#include <cmath>
#include <cstring>
#include <optional>

namespace hexgen::compute {

namespace {

// One field of a Protobuf message. `number` of a varint or fixed field, `bytes` of the others.
struct field {
  std::uint32_t id = 0;
  std::uint32_t wire_type = 0;
  std::uint64_t number = 0;
  std::string_view bytes;
};

class field_reader {
public:
  field_reader(const std::string& file, std::string_view bytes) : file_(file), bytes_(bytes) {}

  bool next(field& f) {
    if (bytes_.empty())
      return false;
    const auto tag = varint();
    f = {static_cast<std::uint32_t>(tag >> 3U), static_cast<std::uint32_t>(tag & 7U), 0, {}};
    switch (f.wire_type) {
    case 0:
      f.number = varint();
      return true;
    case 1:
      take(8);
      return true;
    case 2:
      f.bytes = take(varint());
      return true;
    case 5: {
      std::uint32_t bits = 0;
      std::memcpy(&bits, take(4).data(), 4);
      f.number = bits;
      return true;
    }
    default:
      bad_tokenizer(file_, "tokenizer.model", "unknown wire type");
    }
  }

private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto b = static_cast<unsigned char>(take(1).front());
      value |= static_cast<std::uint64_t>(b & 0x7FU) << shift;
      if (b < 0x80)
        return value;
    }
    bad_tokenizer(file_, "tokenizer.model", "a number is too long");
  }

  std::string_view take(std::uint64_t n) {
    if (n > bytes_.size())
      bad_tokenizer(file_, "tokenizer.model", "is cut short");
    const auto front = bytes_.substr(0, n);
    bytes_.remove_prefix(n);
    return front;
  }

  const std::string& file_;
  std::string_view bytes_;
};

void read_piece(vocabulary& v, std::string_view bytes) {
  if (v.pieces.size() >= max_vocabulary)
    bad_tokenizer(v.file, "pieces", "has too many entries");
  std::string text;
  float score = 0;
  std::uint64_t type = 1;
  field_reader reader(v.file, bytes);
  for (field f; reader.next(f);) {
    if (f.id == 1 && f.wire_type == 2) {
      if (f.bytes.size() > max_piece_bytes)
        bad_tokenizer(v.file, "pieces[" + std::to_string(v.pieces.size()) + "]", "is too long");
      text = f.bytes;
    } else if (f.id == 2 && f.wire_type == 5) {
      const auto bits = static_cast<std::uint32_t>(f.number);
      std::memcpy(&score, &bits, 4);
    } else if (f.id == 3 && f.wire_type == 0) {
      type = f.number;
    }
  }
  if (type < 1 || type > 6)
    bad_tokenizer(v.file, "pieces[" + std::to_string(v.pieces.size()) + "]", "unknown type");
  v.pieces.push_back(std::move(text));
  v.scores.push_back(score);
  v.kinds.push_back(static_cast<token_kind>(type));
}

// Ids of -1 stand for "none" and come as ten bytes.
token_id id_of(const vocabulary& v, std::uint64_t number) {
  const auto id = static_cast<std::int64_t>(number);
  if (id < -1 || id > static_cast<std::int64_t>(max_vocabulary))
    bad_tokenizer(v.file, "trainer_spec", "an id is out of range");
  return static_cast<token_id>(id);
}

} // namespace

std::shared_ptr<const tokenizer> tokenizer_of_model(const std::string& name, std::string_view bytes,
                                                    const tokenizer_settings& settings) {
  vocabulary v;
  v.file = name;
  v.unknown = 0;
  v.bos = 1;
  v.eos = 2;
  v.add_bos = true;
  std::uint64_t model_type = 1;
  bool dummy_prefix = true;
  bool charsmap = false;
  bool squeezes_spaces = true;
  field_reader reader(v.file, bytes);
  for (field f; reader.next(f);) {
    if (f.wire_type != 2)
      continue;
    field_reader inner(v.file, f.bytes);
    field g;
    if (f.id == 1)
      read_piece(v, f.bytes);
    else if (f.id == 2)
      while (inner.next(g)) {
        if (g.wire_type != 0)
          continue;
        if (g.id == 3)
          model_type = g.number;
        else if (g.id == 40)
          v.unknown = id_of(v, g.number);
        else if (g.id == 41)
          v.bos = id_of(v, g.number);
        else if (g.id == 42)
          v.eos = id_of(v, g.number);
      }
    else if (f.id == 3)
      while (inner.next(g)) {
        if (g.id == 2 && g.wire_type == 2)
          charsmap = !g.bytes.empty();
        else if (g.id == 3 && g.wire_type == 0)
          dummy_prefix = g.number != 0;
        else if (g.id == 4 && g.wire_type == 0)
          squeezes_spaces = g.number != 0;
      }
  }
  if (model_type != 2)
    bad_tokenizer(v.file, "trainer_spec.model_type", "only BPE models (2) are served");
  if (charsmap || squeezes_spaces)
    bad_tokenizer(v.file, "normalizer_spec",
                  "models that change the text before cutting it are not served");
  // SentencePiece's own symbols are cut out of the text without being breaks in it.
  for (std::size_t i = 0; i < v.pieces.size(); ++i)
    if (v.kinds[i] == token_kind::user_defined)
      v.added.push_back({static_cast<token_id>(i), false, false, false, true});
  apply_settings(v, settings);
  complete_vocabulary(v);
  sentencepiece_options options;
  options.prefix = dummy_prefix ? space_prefix::parts : space_prefix::never;
  return make_sentencepiece_tokenizer(std::move(v), {}, options);
}

} // namespace hexgen::compute
