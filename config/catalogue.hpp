// Where the shipped files lie: `config/clusters/NAME.yaml` and so on.
#pragma once

#include <string>

namespace hexgen::config {

/// A path to an existing file stays as it is. A bare name is looked up as `folder/NAME.yaml` in
/// $HEXGEN_CONFIG_DIR, ./config, beside and above the program, and where it was built.
/// Throws config_error saying where it looked.
[[nodiscard]] std::string find_config(const std::string& name_or_path, const std::string& folder);

} // namespace hexgen::config
