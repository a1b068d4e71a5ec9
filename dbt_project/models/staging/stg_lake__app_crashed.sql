{{ staged_event('app_crashed') }}
