#include "tools/planning/svg.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <map>
#include <stdexcept>

namespace hexgen::tools {

namespace {

std::string colour(std::size_t number) {
  char text[32];
  // Golden-angle hues: neighbours differ well however many there are.
  std::snprintf(text, sizeof text, "hsl(%d,65%%,55%%)",
                static_cast<int>(std::fmod(static_cast<double>(number) * 137.508, 360.0)));
  return text;
}

std::string escaped(const std::string& text) {
  std::string safe;
  for (const char c : text) {
    if (c == '<')
      safe += "&lt;";
    else if (c == '&')
      safe += "&amp;";
    else if (c == '"')
      safe += "&quot;";
    else
      safe += c;
  }
  return safe;
}

std::string point(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f", value);
  return text;
}

std::string label(double x, double y, const std::string& text, int size,
                  const std::string& anchor = "start") {
  std::string made = "<text x=\"";
  return made.append(point(x))
      .append("\" y=\"")
      .append(point(y))
      .append("\" font-size=\"")
      .append(std::to_string(size))
      .append("\" text-anchor=\"")
      .append(anchor)
      .append("\">")
      .append(escaped(text))
      .append("</text>\n");
}

std::string box(double x, double y, double w, double h, const std::string& fill,
                const std::string& title) {
  std::string made = "<rect x=\"";
  made.append(point(x))
      .append("\" y=\"")
      .append(point(y))
      .append("\" width=\"")
      .append(point(w))
      .append("\" height=\"")
      .append(point(h))
      .append("\" rx=\"3\" fill=\"")
      .append(fill)
      .append("\" stroke=\"#555\">");
  if (!title.empty())
    made.append("<title>").append(escaped(title)).append("</title>");
  return made.append("</rect>\n");
}

std::string page(double width, double height, const std::string& body) {
  return "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"" + point(width) + "\" height=\"" +
         point(height) + "\" font-family=\"sans-serif\">\n<rect width=\"100%\" height=\"100%\" " +
         "fill=\"white\"/>\n" + body + "</svg>\n";
}

std::string tick_text(double value) {
  char text[32];
  std::snprintf(text, sizeof text, "%.4g", value);
  return text;
}

} // namespace

void write_text(const std::string& path, const std::string& text) {
  std::ofstream out(path, std::ios::binary);
  out << text;
  out.close();
  if (!out)
    throw std::runtime_error(path + ": cannot be written");
}

std::string layout_svg(const planning_inputs& inputs, const planned& plan) {
  struct place {
    std::size_t replica = 0, stage = 0;
    int first = 0, layers = 0;
    bool used = false;
  };
  const auto& pool = *inputs.pool;
  std::vector<place> places(static_cast<std::size_t>(pool.devices()));
  for (std::size_t r = 0; r < plan.lines.size(); ++r)
    for (std::size_t j = 0; j < plan.lines[r].size(); ++j)
      for (const int device : plan.lines[r][j].devices)
        places[static_cast<std::size_t>(device)] = {r, j, plan.lines[r][j].first_layer,
                                                    plan.lines[r][j].layers, true};
  constexpr double cell = 46, row = 40, name_width = 150;
  std::map<int, std::vector<int>> nodes; // by region
  std::vector<std::vector<int>> devices(static_cast<std::size_t>(pool.nodes()));
  std::size_t widest = 1;
  for (int device = 0; device < pool.devices(); ++device) {
    auto& here = devices[static_cast<std::size_t>(pool.node_of(device))];
    here.push_back(device);
    widest = std::max(widest, here.size());
  }
  for (int node = 0; node < pool.nodes(); ++node)
    nodes[pool.region_of_node(node)].push_back(node);
  std::string body = label(10, 22, inputs.model.name + " on " + inputs.cluster.name, 16);
  const double width = name_width + static_cast<double>(widest) * cell + 40;
  double y = 36;
  for (const auto& [region, members] : nodes) {
    const double height = static_cast<double>(members.size()) * row + 26;
    body += box(8, y, width - 16, height, "#f4f4f4", "");
    body += label(16, y + 17, pool.region_name(region), 13);
    double line = y + 24;
    for (const int node : members) {
      body += label(20, line + 20, pool.node_name(node), 12);
      double x = name_width;
      for (const int device : devices[static_cast<std::size_t>(node)]) {
        const auto& at = places[static_cast<std::size_t>(device)];
        const auto& kind = pool.kind(pool.kind_of(device));
        std::string title = pool.id(device) + " " + kind.name;
        if (at.used)
          title += ": replica " + std::to_string(at.replica) + ", stage " +
                   std::to_string(at.stage) + ", layers " + std::to_string(at.first) + "-" +
                   std::to_string(at.first + at.layers - 1);
        else
          title += ": idle";
        body += box(x, line, cell - 4, row - 8, at.used ? colour(at.replica) : "#ffffff", title);
        body +=
            label(x + cell / 2 - 2, line + 20,
                  at.used ? std::to_string(at.replica) + "." + std::to_string(at.stage) : "idle",
                  11, "middle");
        x += cell;
      }
      line += row;
    }
    y += height + 8;
  }
  body += label(10, y + 14, "replica.stage in each device; hover for kind and layers", 11);
  return page(width, y + 26, body);
}

std::string curves_svg(const std::string& title, const std::string& x_label,
                       const std::string& y_label, const std::vector<curve>& curves, bool log_x,
                       bool log_y) {
  constexpr double width = 720, height = 440, left = 70, right = 20, top = 40, bottom = 60;
  const auto sx = [&](double v) { return log_x ? std::log10(std::max(v, 1e-12)) : v; };
  const auto sy = [&](double v) { return log_y ? std::log10(std::max(v, 1e-12)) : v; };
  double x0 = 1e300, x1 = -1e300, y0 = log_y ? 1e300 : 0, y1 = -1e300;
  for (const auto& one : curves)
    for (const auto& [x, y] : one.points) {
      x0 = std::min(x0, sx(x));
      x1 = std::max(x1, sx(x));
      y0 = std::min(y0, sy(y));
      y1 = std::max(y1, sy(y));
    }
  if (!(x1 > x0))
    x1 = x0 + 1;
  if (!(y1 > y0))
    y1 = y0 + 1;
  const auto px = [&](double v) { return left + (v - x0) / (x1 - x0) * (width - left - right); };
  const auto py = [&](double v) {
    return height - bottom - (v - y0) / (y1 - y0) * (height - top - bottom);
  };
  std::string body = label(width / 2, 22, title, 15, "middle");
  for (int i = 0; i <= 5; ++i) {
    const double x = x0 + (x1 - x0) * i / 5, y = y0 + (y1 - y0) * i / 5;
    body +=
        label(px(x), height - bottom + 18, tick_text(log_x ? std::pow(10, x) : x), 11, "middle");
    body += label(left - 6, py(y) + 4, tick_text(log_y ? std::pow(10, y) : y), 11, "end");
    body.append("<line x1=\"")
        .append(point(left))
        .append("\" x2=\"")
        .append(point(width - right))
        .append("\" y1=\"")
        .append(point(py(y)))
        .append("\" y2=\"")
        .append(point(py(y)))
        .append("\" stroke=\"#ddd\"/>\n");
  }
  body += label((left + width - right) / 2, height - 22, x_label, 12, "middle");
  body += label(8, top - 6, y_label, 12);
  for (std::size_t i = 0; i < curves.size(); ++i) {
    body += "<polyline fill=\"none\" stroke-width=\"2\" stroke=\"";
    body.append(colour(i)).append("\" points=\"");
    for (const auto& [x, y] : curves[i].points)
      body.append(point(px(sx(x)))).append(",").append(point(py(sy(y)))).append(" ");
    body += "\"/>\n";
    body += box(left + 10, top + 4 + 16.0 * static_cast<double>(i), 10, 10, colour(i), "");
    body += label(left + 26, top + 14 + 16.0 * static_cast<double>(i), curves[i].name, 11);
  }
  return page(width, height, body);
}

} // namespace hexgen::tools
