// Reads tokenizer_config.json and generation_config.json into a vocabulary.
#pragma once

#include "compute/text/tokenizer_readers.hpp"
#include "compute/text/vocabulary.hpp"

namespace hexgen::compute {

/// Sets bos, eos, unknown, add_bos, end_ids and the chat template as far as the settings name
/// them; token texts are looked up in `v.pieces`. Throws file_error.
void apply_settings(vocabulary& v, const tokenizer_settings& settings);

} // namespace hexgen::compute
