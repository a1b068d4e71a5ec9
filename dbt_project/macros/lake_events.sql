{# The events of the tracking plan; made by `zantara plan codegen dbt --out dbt_project`; change the tracking plan, not this file. #}
{% macro lake_events() %}
    {{ return([
        'add_to_cart',
        'app_crashed',
        'experiment_exposed',
        'item_tag',
        'page_timing',
        'product_view',
        'purchase',
        'rating',
        'recommendation_clicked',
        'recommendation_exposed',
        'refund',
        'session_started'
    ]) }}
{% endmacro %}
