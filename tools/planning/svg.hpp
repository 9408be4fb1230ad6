// Pictures without a library: a layout over its regions, and curves.
#pragma once

#include "tools/planning/plan_file.hpp"

#include <string>
#include <utility>
#include <vector>

namespace hexgen::tools {

/// Regions as boxes, nodes as rows of devices, coloured by replica and numbered by stage.
[[nodiscard]] std::string layout_svg(const planning_inputs& inputs, const planned& plan);

struct curve {
  std::string name;
  std::vector<std::pair<double, double>> points;
};

/// Curves over one axis; `log_x`, `log_y` for axes by powers of ten.
[[nodiscard]] std::string curves_svg(const std::string& title, const std::string& x_label,
                                     const std::string& y_label, const std::vector<curve>& curves,
                                     bool log_x = false, bool log_y = false);

/// Throws std::runtime_error naming the file.
void write_text(const std::string& path, const std::string& text);

} // namespace hexgen::tools
