#include "config/catalogue.hpp"

#include "config/error.hpp"

#include <cstdlib>
#include <filesystem>
#include <vector>

namespace hexgen::config {

namespace fs = std::filesystem;

std::string find_config(const std::string& name_or_path, const std::string& folder) {
  std::error_code ignored;
  if (!name_or_path.empty() && fs::is_regular_file(name_or_path, ignored))
    return name_or_path;
  std::vector<fs::path> roots;
  if (const char* set = std::getenv("HEXGEN_CONFIG_DIR"); set != nullptr && *set != '\0')
    roots.emplace_back(set);
  roots.emplace_back("config");
  const auto program = fs::read_symlink("/proc/self/exe", ignored);
  if (!ignored) {
    roots.push_back(program.parent_path() / "config");
    roots.push_back(program.parent_path().parent_path() / "config");
    roots.push_back(program.parent_path().parent_path() / "share" / "hexgen" / "config");
  }
  roots.emplace_back(HEXGEN_CONFIG_BUILD_DIR);
  const bool bare = name_or_path.find('/') == std::string::npos && !name_or_path.empty();
  if (bare)
    for (const auto& root : roots) {
      const auto path = root / folder / (name_or_path + ".yaml");
      if (fs::is_regular_file(path, ignored))
        return path.string();
    }
  std::string known;
  for (const auto& root : roots) {
    for (const auto& entry : fs::directory_iterator(root / folder, ignored))
      if (entry.path().extension() == ".yaml")
        known += (known.empty() ? "" : ", ") + entry.path().stem().string();
    if (!known.empty())
      break;
  }
  throw config_error(name_or_path, 0, "",
                     "no such file" +
                         (bare && !known.empty() ? ", and not one of " + known : std::string()));
}

} // namespace hexgen::config
