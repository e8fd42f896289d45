"""The page itself: a template of Jinja, and what is inline in it."""

STYLE = """
  body { margin: 2rem auto; max-width: 76rem; padding: 0 1.5rem; color: #1d2733;
         background: #f5f6f8; font: 16px/1.5 system-ui, sans-serif }
  h1 { margin: 0 0 1rem; font-size: 1.5rem; overflow-wrap: anywhere }
  h2 { margin: 1.75rem 0 .75rem; font-size: 1rem; font-weight: 500 }
  h3 { margin: 0; font-size: 1.1rem; overflow-wrap: anywhere }
  .drop { position: relative; display: block; padding: 1.75rem; text-align: center;
          border: 2px dashed #9aa5b1; border-radius: .75rem; background: #fff }
  .drop:hover, .drop:focus-within { border-color: #0b6bcb; background: #f0f6fd }
  .drop input { position: absolute; inset: 0; width: 100%; opacity: 0; cursor: pointer }
  .busy .idle, body:not(.busy) .wait { display: none }
  .busy form { pointer-events: none }
  .error { padding: .75rem 1rem; border-radius: .75rem; color: #8c1d18; background: #fbe9e7 }
  .side { display: grid; gap: 1.5rem;
          grid-template-columns: repeat(auto-fit, minmax(min(20rem, 100%), 1fr)) }
  .busy .side { opacity: .4 }
  article { padding: 1rem; border-radius: .75rem; background: #fff; box-shadow: 0 1px 4px #0002 }
  article img { display: block; width: 100%; margin: .75rem 0; border-radius: .25rem }
  dl { display: flex; flex-wrap: wrap; gap: .5rem 1.75rem; margin: 0; white-space: nowrap }
  dt, small, footer { color: #5b6773; font-size: .85rem }
  dd { margin: 0; font-size: 1.3rem; font-weight: 600 }
  small { display: block; font-weight: 400 }
  .better { color: #0a7a3d } .worse { color: #a15c00 }
  footer { margin-top: 1.5rem }
"""

SCRIPT = """
  const form = document.forms[0];
  addEventListener("pageshow", () => { form.reset(); document.body.className = ""; });
  form.picture.addEventListener("change", () => {
    document.body.className = "busy";
    form.submit();
  });
"""

# Nothing is loaded from elsewhere. The <input> fills the drop area, and browsers drop into it.
PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>sparsedet</title>
<link rel="icon" href="data:,">
<style>{{ style | safe }}</style>
</head>
<body>
{% macro ratio(first, value, better, worse) %}
  {% set times = first / value %}
  {% if times >= 1 %}<small class="better">{{ "%.1f" | format(times) }}x {{ better }}</small>
  {% else %}<small class="worse">{{ "%.1f" | format(1 / times) }}x {{ worse }}</small>{% endif %}
{% endmacro %}
<h1>{{ models | map(attribute="name") | join(", ") }}</h1>
<form method="post" enctype="multipart/form-data">
  <label class="drop">
    <span class="idle">Drop a picture here, or <u>choose one</u></span>
    <span class="wait">Detecting ...</span>
    <input type="file" name="picture" accept="image/*" aria-label="Picture">
  </label>
</form>
{% if error %}<p class="error" role="alert">{{ error }}</p>{% endif %}
{% if results %}
<h2>{{ heading }}</h2>
<div class="side">
  {% for result in results %}
  <article>
    <h3>{{ result.model.name }}</h3>
    <img src="{{ result.data_url }}" alt="{{ result.count }} {{ result.what }}">
    <dl>
      <div><dt>Time</dt><dd>{{ "%.1f" | format(result.ms) }} ms
        {% if not loop.first %}{{ ratio(results[0].ms, result.ms, "faster", "slower") }}{% endif %}
      </dd></div>
      <div><dt>File</dt><dd>{{ "%.2f" | format(result.model.file_bytes / 1e6) }} MB
        {% if not loop.first %}
        {{ ratio(results[0].model.file_bytes, result.model.file_bytes, "smaller", "larger") }}
        {% endif %}
      </dd></div>
      <div><dt>{{ result.what | capitalize }}</dt><dd>{{ result.count }}</dd></div>
    </dl>
  </article>
  {% endfor %}
</div>
{% endif %}
<footer>{{ note }}. Time: from pixels to detections, the median of {{ runs }} runs after one to
warm up, the models in turn.</footer>
<script>{{ script | safe }}</script>
</body>
</html>
"""
